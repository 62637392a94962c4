-- Some sessions of a node in a partition. KEYS: 1 sessions of the node. ARGV: 1 how many at most
return redis.call('SRANDMEMBER', KEYS[1], ARGV[1])
