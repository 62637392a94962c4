-- A node has died, or does not know a session that it owns: nobody owns the session from now on.
-- KEYS[10] is the set of that node.
-- ARGV: 1 sid, 2 that node, 3 resume window, 4 idle timeout, 5 window of a session that its client
--       may not know, 6 most outputs, 7 most bytes of them, 8 ms to keep a tombstone,
--       9 the node's number of the call to undo, or ''
-- The answer: 'orphaned' | 'ended', tombstone | 'not_theirs'
local sid, node = ARGV[1], ARGV[2]
local head = redis.call('HMGET', KEYS[1], 'o', 'p', 'ls', 'rs', 'ob', 'dr', 'at', 'he', 'wm', 'da', 'n', 're')
if head[1] == node and ARGV[9] ~= '' and head[11] ~= ARGV[9] then return { 'not_theirs' } end
if head[1] ~= node then
  redis.call('SREM', KEYS[10], sid)
  return { 'not_theirs' }
end
local at = now()
-- Nobody can resume the basic profile.
if head[2] == 'basic' then return finish(sid, 'disconnected', text(at), '', ARGV[8]) end
local numbers = {
  ls = tonumber(head[3]), rs = tonumber(head[4]), ob = tonumber(head[5]), dr = tonumber(head[6]), re = head[12]
}
settle(numbers, nil, tonumber(ARGV[6]), tonumber(ARGV[7]))
local deadline, reason = at + tonumber(ARGV[3]), 'resume_window'
local idle = tonumber(head[7]) + tonumber(ARGV[4])
if head[8] == '0' and numbers.ls == 0 and head[9] == '0' then deadline = math.min(deadline, at + tonumber(ARGV[5])) end
if idle < deadline then deadline, reason = idle, 'idle' end
redis.call('HSET', KEYS[1], 'o', '', 'dl', text(deadline), 'er', reason, 'ls', text(numbers.ls), 'rs', text(numbers.rs),
  'ob', text(numbers.ob), 'dr', text(numbers.dr), 'ib', '0', 'iy', '0', 'da', head[10] ~= '' and head[10] or text(at))
redis.call('ZADD', KEYS[9], text(deadline), sid)
redis.call('SREM', KEYS[10], sid)
return { 'orphaned' }
