-- Ends an ownerless session: at its deadline, or at once for the reason that is given. Keys 1 to 9.
-- ARGV: 1 sid, 2 reason or '', 3 ms to keep the tombstone
-- The answer: 'ended', tombstone | 'owned' | 'early' | 'missing'
local head = redis.call('HMGET', KEYS[1], 'o', 'dl', 'er')
if not head[1] then
  redis.call('ZREM', KEYS[9], ARGV[1])
  return { 'missing' }
end
if head[1] ~= '' then
  redis.call('ZREM', KEYS[9], ARGV[1])
  return { 'owned' }
end
local at, reason = now(), ARGV[2]
if reason == '' then
  if at < tonumber(head[2]) then return { 'early' } end
  reason = head[3]
end
return finish(ARGV[1], reason, text(at), '', ARGV[3])
