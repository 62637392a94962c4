-- Keeps a new session of the calling node, unless its id is known or its user has as many as he
-- may.
-- ARGV: 1 node, 2 sid, 3 user, 4 most sessions of the user or 0, 5 createdAt, 6 lastSeq, 7
--       releasedSeq,
--       8 count of field texts, fields, outputs
-- The answer: 'created', fence | 'exists' | 'user_quota', the user's session that has been
-- ownerless the longest, or ''
local node, sid, user, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('EXISTS', KEYS[1], KEYS[6]) > 0 then return { 'exists' } end
if limit > 0 then
  local own = redis.call('ZRANGEBYLEX', KEYS[8], '[' .. user .. '\0', '(' .. user .. '\1')
  if #own >= limit then
    local first, earliest = '', math.huge
    for i = 1, #own do
      local candidate = string.sub(own[i], #user + 2)
      local deadline = tonumber(redis.call('ZSCORE', KEYS[9], candidate) or 'inf')
      if deadline < earliest then first, earliest = candidate, deadline end
    end
    return { 'user_quota', first }
  end
end
local from = 9 + tonumber(ARGV[8])
local at, bytes = now(), 0
for i = from, #ARGV do bytes = bytes + #ARGV[i] end
-- The clock is in it so that the number rises even where the store has lost the session and gets it
-- again.
local fence = text(at)
local values = {
  'u', user, 'c', ARGV[5], 'o', node, 'f', fence, 'ls', ARGV[6], 'rs', ARGV[7], 'ob', text(bytes), 'ib', '0', 'iy', '0',
  'at', text(at), 'dl', '', 'er', ''
}
for i = 9, from - 1 do values[#values + 1] = ARGV[i] end
-- First what a server without memory refuses: it does not take back what a script has done.
put(values, '')
push(KEYS[3], ARGV, from)
redis.call('ZADD', KEYS[7], ARGV[5], sid)
redis.call('ZADD', KEYS[8], 0, user .. '\0' .. sid)
redis.call('SADD', KEYS[10], sid)
return { 'created', fence }
