-- A node goes: whatever it still owns is to be picked up by others. KEYS as those of lease. ARGV: 1
-- node
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[2], text(now()), ARGV[1])
return { 'ok' }
