-- Keeps the last batch of the owner; then nobody owns the session, and it ends at its deadline.
-- ARGV: 1 sid, 2 ms to keep it, 3 reason of its end then, 4 most outputs, 5 most bytes of them, 6
--       on: see `append`
-- The answer: as that of commit
local result = append(6)
if result[1] ~= 'kept' then return result end
local head = result[2]
head.dr = tonumber(redis.call('HGET', KEYS[1], 'dr'))
-- The batch has all that its owner has given.
redis.call('HDEL', KEYS[1], 're')
settle(head, nil, tonumber(ARGV[4]), tonumber(ARGV[5]))
local deadline = text(now() + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'o', '', 'dl', deadline, 'er', ARGV[3], 'ls', text(head.ls), 'rs', text(head.rs),
  'ob', text(head.ob), 'dr', text(head.dr), 'ib', '0', 'iy', '0')
redis.call('ZADD', KEYS[9], deadline, ARGV[1])
redis.call('SREM', KEYS[10], ARGV[1])
return { 'kept', '0' }
