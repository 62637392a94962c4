-- Sessions of one partition in order of (createdAt, id), after a place. KEYS: 1 sessions by
-- creation
-- ARGV: 1 '1' for the newest first, 2 least and 3 greatest createdAt, as ZRANGE BYSCORE takes them,
--       4 createdAt and 5 id of the place, or '', 6 how many at most
-- The answer: id, createdAt, id, createdAt, …
local newest, low, high, score, id, most = ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local answer = {}
-- Ids with the score of the place stand on both of its sides.
local skip = 0
if score ~= '' then
  if newest then high = score else low = score end
  local rank = redis.call(newest and 'ZREVRANK' or 'ZRANK', KEYS[1], id)
  if rank then
    local edge = redis.call('ZCOUNT', KEYS[1], newest and ('(' .. score) or '-inf', newest and '+inf' or ('(' .. score))
    skip = rank - edge + 1
  end
end
while #answer < most * 2 do
  local rows
  if newest then
    rows = redis.call('ZRANGE', KEYS[1], high, low, 'BYSCORE', 'REV', 'LIMIT', skip, most, 'WITHSCORES')
  else
    rows = redis.call('ZRANGE', KEYS[1], low, high, 'BYSCORE', 'LIMIT', skip, most, 'WITHSCORES')
  end
  for i = 1, #rows, 2 do
    local beyond = score == '' or rows[i + 1] ~= score or (newest and rows[i] < id) or (not newest and rows[i] > id)
    if beyond and #answer < most * 2 then
      answer[#answer + 1] = rows[i]
      answer[#answer + 1] = rows[i + 1]
    end
  end
  if #rows < most * 2 then break end
  skip = skip + most
end
return answer
