-- A session without its outputs, or its tombstone. Keys 1 to 6.
-- The answer: 'session', head, long values | 'ended', tombstone | 'missing'
local head = redis.call('HGETALL', KEYS[1])
if #head > 0 then return { 'session', head, redis.call('HGETALL', KEYS[2]) } end
local stone = redis.call('HGETALL', KEYS[6])
if #stone > 0 then return { 'ended', stone } end
return { 'missing' }
