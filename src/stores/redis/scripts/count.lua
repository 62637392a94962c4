-- KEYS: 1 sessions by creation, 2 deadlines, then the sets of nodes. The answer: how many are in
-- each.
local answer = { redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2]) }
for i = 3, #KEYS do answer[i] = redis.call('SCARD', KEYS[i]) end
return answer
