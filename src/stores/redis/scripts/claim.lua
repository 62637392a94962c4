-- Gives the session to the calling node, for a holder of its token; KEYS[10] is the set of that
-- node, KEYS[11] of the former one.
-- ARGV: 1 sid, 2 node, 3 user, 4 hash of the token, 5 hash of the next one, 6 highest seq of the
--       client, 7 labels, 8 owner and 9 fence that the caller expects, 10 most outputs, 11 most
--       bytes of them, 12 ms to keep a tombstone, 13 the node's number of this call
-- The answer: 'claimed', fence, former owner, head, long values, outputs | 'unknown' | 'owned',
--             owner, fence | 'ended', tombstone, and '1' where this call has ended it
local sid, node, user, hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local head = redis.call('HMGET', KEYS[1], 'o', 'f', 'th', 'pt', 'ls', 'rs', 'ob', 'dr', 'dl', 'er', 'lg', 'u', 're')
local owner = head[1]
if not owner then
  local stone = redis.call('HGETALL', KEYS[6])
  if #stone == 0 then return { 'unknown' } end
  return { 'ended', stone, '0' }
end
if (head[12] or redis.call('HGET', KEYS[2], 'u')) ~= user then return { 'unknown' } end
if hash == '' then return { 'unknown' } end
-- As previousAfter of io/session/resume-token.ts.
local previous = { hash }
if head[3] ~= hash then
  local isPrevious = false
  previous[2] = head[3]
  for other in string.gmatch(head[4] or redis.call('HGET', KEYS[2], 'pt'), '%S+') do
    if other == hash then isPrevious = true elseif #previous < 4 then previous[#previous + 1] = other end
  end
  if not isPrevious then return { 'unknown' } end
end
local at = now()
if owner == '' then
  -- The sweep may be late.
  if at >= tonumber(head[9]) then
    return { 'ended', finish(sid, head[10], text(at), '', ARGV[12])[2], '1' }
  end
elseif owner ~= ARGV[8] or head[2] ~= ARGV[9] then
  return { 'owned', owner, head[2] }
end
local last = tonumber(head[5])
if tonumber(ARGV[6]) > math.max(last, tonumber(head[13] or '0')) then
  if owner ~= '' then redis.call('SREM', KEYS[11], sid) end
  return { 'ended', finish(sid, 'state_lost', text(at), '', ARGV[12])[2], '1' }
end
local numbers = { ls = last, rs = tonumber(head[6]), ob = tonumber(head[7]), dr = tonumber(head[8]), re = head[13] }
if owner ~= '' then settle(numbers, nil, tonumber(ARGV[10]), tonumber(ARGV[11])) end
local fence = text(math.max(tonumber(head[2]) + 1, at))
put({
  'o', node, 'f', fence, 'th', ARGV[5], 'pt', table.concat(previous, ' '), 'l', ARGV[7],
  'da', '', 'dl', '', 'er', '', 'ib', '0', 'iy', '0',
  'n', ARGV[13], 'at', text(at), 'ls', text(numbers.ls), 'rs', text(numbers.rs), 'ob', text(numbers.ob),
  'dr', text(numbers.dr)
}, head[11])
redis.call('ZREM', KEYS[9], sid)
if owner ~= '' then redis.call('SREM', KEYS[11], sid) end
redis.call('SADD', KEYS[10], sid)
return {
  'claimed', fence, owner, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]),
  redis.call('LRANGE', KEYS[3], 0, -1)
}
