-- Keeps what a session is sent by a node that does not own it: as an output of an ownerless
-- session, else in its inbox. Keys 1 to 5.
-- ARGV: 1 push id or '', 2 entry, 3 most outputs, 4 most bytes of them, 5 most inbox entries, 6
--       most bytes of them,
--       7 ms to remember a push id
-- The answer: 'sequenced', seq | 'queued', owner | 'duplicate' | 'full' | 'missing'
local head = redis.call('HMGET', KEYS[1], 'o', 'ls', 'rs', 'ob', 'dr', 'dl', 'iy')
local owner = head[1]
if not owner then return { 'missing' } end
local at = now()
if owner == '' and at >= tonumber(head[6]) then return { 'missing' } end
local id, entry = ARGV[1], ARGV[2]
if id ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', at - tonumber(ARGV[7]))
  if redis.call('ZSCORE', KEYS[5], id) then return { 'duplicate' } end
end
local answer
if owner == '' then
  local numbers = { ls = tonumber(head[2]), rs = tonumber(head[3]), ob = tonumber(head[4]), dr = tonumber(head[5]) }
  settle(numbers, entry, tonumber(ARGV[3]), tonumber(ARGV[4]))
  redis.call('HSET', KEYS[1], 'ls', text(numbers.ls), 'rs', text(numbers.rs), 'ob', text(numbers.ob),
    'dr', text(numbers.dr), 'la', text(at), 'at', text(at))
  answer = { 'sequenced', text(numbers.ls) }
else
  local bytes = tonumber(head[7]) + #entry
  local count = redis.call('LLEN', KEYS[4])
  if count > 0 and (count >= tonumber(ARGV[5]) or bytes > tonumber(ARGV[6])) then return { 'full' } end
  redis.call('RPUSH', KEYS[4], entry)
  redis.call('HSET', KEYS[1], 'iy', text(bytes))
  answer = { 'queued', owner }
end
if id ~= '' then
  redis.call('ZADD', KEYS[5], at, id)
  redis.call('PEXPIRE', KEYS[5], ARGV[7])
end
return answer
