-- What waits in the inbox of an owned session. Keys 1 to 4.
-- ARGV: 1 node, 2 fence, 3 number of the last entry that the caller has, 4 how many at most
-- The answer: 'entries', number of the first, entries | 'fenced' | 'missing'
local head = redis.call('HMGET', KEYS[1], 'o', 'f', 'ib')
if not head[1] then return { 'missing' } end
if head[1] ~= ARGV[1] or head[2] ~= ARGV[2] then return { 'fenced' } end
local taken = tonumber(head[3])
local skip = math.max(0, tonumber(ARGV[3]) - taken)
return { 'entries', text(taken + skip + 1), redis.call('LRANGE', KEYS[4], skip, skip + tonumber(ARGV[4]) - 1) }
