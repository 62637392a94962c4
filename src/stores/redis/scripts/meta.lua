-- What holds for the whole deployment is set by its first node. KEYS: 1 meta (hash). ARGV: 1
-- layout, 2 partitions
-- The answer: layout and partitions that hold
redis.call('HSETNX', KEYS[1], 'layout', ARGV[1])
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[2])
return redis.call('HMGET', KEYS[1], 'layout', 'partitions')
