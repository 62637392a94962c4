-- Replaces the context of an ownerless session, if it is still the one that the caller has read.
-- Keys 1 and 2.
-- ARGV: 1 the context that was read, 2 the next one
-- The answer: 'kept' | 'changed' | 'owned' | 'missing'
local head = redis.call('HMGET', KEYS[1], 'o', 'dl', 'x', 'lg')
if not head[1] then return { 'missing' } end
if head[1] ~= '' then return { 'owned' } end
if now() >= tonumber(head[2]) then return { 'missing' } end
if (head[3] or redis.call('HGET', KEYS[2], 'x')) ~= ARGV[1] then return { 'changed' } end
put({ 'x', ARGV[2] }, head[4])
return { 'kept' }
