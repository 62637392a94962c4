-- Ends a session whose owner is the one that the caller has read; '' for none.
-- ARGV: 1 sid, 2 owner, 3 reason, 4 note, 5 ms to keep the tombstone
-- The answer: 'ended', tombstone, owner, fence | 'moved' | 'missing'
local owner = redis.call('HGET', KEYS[1], 'o')
if not owner then return { 'missing' } end
if owner ~= ARGV[2] then return { 'moved' } end
return finish(ARGV[1], ARGV[3], text(now()), ARGV[4], ARGV[5])
