-- Ends a session of the calling node.
-- ARGV: 1 sid, 2 node, 3 fence, 4 reason, 5 endedAt, 6 note, 7 ms to keep the tombstone,
--       8 watermark, 9 and 10 hashes of tokens, 11 user
-- The answer: 'ended', tombstone | 'fenced' | 'missing'
local head = redis.call('HMGET', KEYS[1], 'o', 'f')
if not head[1] then return { 'missing' } end
if head[1] ~= ARGV[2] or head[2] ~= ARGV[3] then return { 'fenced' } end
finish(ARGV[1], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
-- What the owner knows may be newer than its last batch.
redis.call('HSET', KEYS[6], 'wm', ARGV[8], 'th', ARGV[9], 'pt', ARGV[10], 'u', ARGV[11])
return { 'ended', redis.call('HGETALL', KEYS[6]) }
