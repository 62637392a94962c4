-- Renews the lease of a node, and buries those whose lease is over.
-- KEYS: 1 leases (zset), 2 dead nodes (zset), 3 what nodes say of themselves (hash), 4 when a node
-- was here last
-- ARGV: 1 node, 2 ms of a lease, 3 its information, 4 ms to remember the dead
-- The answer: 'ok', time, nodes alive and the end of their leases, information of each, dead nodes
-- | 'dead'
local node, term, at = ARGV[1], tonumber(ARGV[2]), now()
if redis.call('ZSCORE', KEYS[2], node) then return { 'dead' } end
-- Where nobody was here for half a lease, it was the store that was away. Nobody is dead for that.
local before = tonumber(redis.call('GET', KEYS[4]) or '0')
redis.call('SET', KEYS[4], text(at))
if at - before > term / 2 then
  for _, other in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', text(at + term), 'BYSCORE')) do
    redis.call('ZADD', KEYS[1], 'XX', text(at + term), other)
  end
end
redis.call('ZADD', KEYS[1], text(at + term), node)
redis.call('HSET', KEYS[3], node, ARGV[3])
for _, other in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', '(' .. text(at), 'BYSCORE')) do
  redis.call('ZREM', KEYS[1], other)
  redis.call('HDEL', KEYS[3], other)
  redis.call('ZADD', KEYS[2], text(at), other)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(at - tonumber(ARGV[4])))
local alive = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local said = {}
for i = 1, #alive, 2 do said[#said + 1] = redis.call('HGET', KEYS[3], alive[i]) or '{}' end
return { 'ok', text(at), alive, said, redis.call('ZRANGE', KEYS[2], 0, -1) }
