-- Ownerless sessions of a partition whose deadline is over. KEYS: 1 deadlines. ARGV: 1 how many at
-- most
return redis.call('ZRANGE', KEYS[1], '-inf', text(now()), 'BYSCORE', 'LIMIT', 0, ARGV[1])
