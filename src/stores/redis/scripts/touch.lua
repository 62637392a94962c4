-- Looks after sessions of a node. KEYS: heads of sessions of one partition. ARGV: 1 node, then
-- their fences
-- The answer: for each 'ok', 'inbox' where something waits in it, 'fenced', or 'missing'
local answer = {}
for i = 1, #KEYS do
  local head = redis.call('HMGET', KEYS[i], 'o', 'f', 'iy')
  if not head[1] then
    answer[i] = 'missing'
  elseif head[1] ~= ARGV[1] or head[2] ~= ARGV[i + 1] then
    answer[i] = 'fenced'
  else
    answer[i] = head[3] == '0' and 'ok' or 'inbox'
  end
end
return answer
