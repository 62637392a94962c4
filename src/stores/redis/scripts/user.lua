-- Ids of a user's sessions. KEYS: 1 sessions by user. ARGV: 1 user, 2 how many at most
local rows = redis.call('ZRANGE', KEYS[1], '[' .. ARGV[1] .. '\0', '(' .. ARGV[1] .. '\1', 'BYLEX', 'LIMIT', 0, ARGV[2])
for i = 1, #rows do rows[i] = string.sub(rows[i], #ARGV[1] + 2) end
return rows
