-- In front of every script. Keys of a session always come in this order; a script declares as many
-- as it uses:
--   1 head (hash), 2 long values (hash), 3 outputs (list), 4 inbox (list), 5 push ids (zset),
--   6 tombstone (hash), 7 sessions by creation (zset), 8 sessions by user (zset),
--   9 deadlines of ownerless sessions (zset), 10 sessions of the owner (set)
-- Fields of the head: see layout.ts. Replies begin with a word. Numbers travel as decimal text: Lua
-- prints doubles in 14 digits.

-- Takes the place of an output that its owner may have given before it died: `NOT_KEPT` of codec.ts.
local GAP = '0:,"type":"gap","payload":{"reason":"not_kept"}}'
local LONG = 64 -- a hash with a longer value leaves its compact encoding, which costs a kilobyte

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- Sets fields of the head; those that are long go to the hash beside it. `longs` is the field `lg`:
-- the names of the long ones.
local function put(values, longs)
  longs = longs or ''
  local short, kept = {}, longs
  for i = 1, #values, 2 do
    local field, value = values[i], values[i + 1]
    local name = field .. ','
    local at = string.find(kept, name, 1, true)
    if #value > LONG then
      redis.call('HSET', KEYS[2], field, value)
      if not at then kept = kept .. name end
      -- The head must not show a former value.
      if not at then redis.call('HDEL', KEYS[1], field) end
    else
      short[#short + 1] = field
      short[#short + 1] = value
      if at then
        redis.call('HDEL', KEYS[2], field)
        kept = string.sub(kept, 1, at - 1) .. string.sub(kept, at + #name)
      end
    end
  end
  if kept ~= longs then
    short[#short + 1] = 'lg'
    short[#short + 1] = kept
  end
  if #short > 0 then redis.call('HSET', KEYS[1], unpack(short)) end
end

-- Removes entries from the left of a list and returns their bytes.
local function shift(key, count)
  local bytes = 0
  while count > 0 do
    local gone = redis.call('LPOP', key, math.min(count, 500))
    if not gone then break end
    for i = 1, #gone do bytes = bytes + #gone[i] end
    count = count - #gone
  end
  return bytes
end

local function push(key, entries, from)
  for i = from, #entries, 500 do
    redis.call('RPUSH', key, unpack(entries, i, math.min(i + 499, #entries)))
  end
end

-- Numbers what the owner left: gaps up to what it had reserved (S-22), then what waits in the inbox.
-- Drops the oldest outputs above the bounds. `head` has ls, rs, ob, dr as numbers, and as `re` what
-- is still reserved, or false.
local function settle(head, extra, maxOutputs, maxBytes)
  local waiting = {}
  for _ = head.ls + 1, tonumber(head.re or '0') do waiting[#waiting + 1] = GAP end
  for _, entry in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do waiting[#waiting + 1] = entry end
  if extra then waiting[#waiting + 1] = extra end
  for i = 1, #waiting do head.ob = head.ob + #waiting[i] end
  push(KEYS[3], waiting, 1)
  redis.call('DEL', KEYS[4])
  head.ls = head.ls + #waiting
  while head.ls - head.rs > 1 and (head.ls - head.rs > maxOutputs or head.ob > maxBytes) do
    head.ob = head.ob - shift(KEYS[3], 1)
    head.rs = head.rs + 1
    head.dr = head.dr + 1
  end
  return #waiting
end

-- Ends the session: all of it goes, and its tombstone is written. KEYS[10] is the set of its owner,
-- if it has one.
local function finish(sid, reason, endedAt, note, keepMs)
  local head = redis.call('HMGET', KEYS[1], 'u', 'wm', 'th', 'pt', 'p', 'rv', 'o', 'f')
  local user = head[1] or redis.call('HGET', KEYS[2], 'u')
  local previous = head[4] or redis.call('HGET', KEYS[2], 'pt')
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  redis.call('ZREM', KEYS[7], sid)
  redis.call('ZREM', KEYS[8], user .. '\0' .. sid)
  redis.call('ZREM', KEYS[9], sid)
  if KEYS[10] then redis.call('SREM', KEYS[10], sid) end
  local stone = {
    'u', user, 'r', reason, 'e', endedAt, 'wm', head[2], 'th', head[3], 'pt', previous, 'p', head[5], 'rv', head[6]
  }
  if note ~= '' then
    stone[#stone + 1] = 'n'
    stone[#stone + 1] = note
  end
  redis.call('HSET', KEYS[6], unpack(stone))
  redis.call('PEXPIRE', KEYS[6], keepMs)
  return { 'ended', redis.call('HGETALL', KEYS[6]), head[7], head[8] }
end

-- Appends the outputs of a batch, drops what is released, and sets what changed. Nothing is changed
-- unless it answers 'kept'.
-- ARGV: 1 node, 2 fence, 3 prevSeq, 4 lastSeq, 5 releasedSeq, 6 inboxTo or '', 7 reservedSeq or '',
--       8 count of field texts, fields, outputs
-- The answer: 'kept', numbers of the head, whether the inbox has more | 'fenced' | 'missing' |
-- 'gap', seq
local function append(at)
  local node, fence = ARGV[at], ARGV[at + 1]
  local head = redis.call('HMGET', KEYS[1], 'o', 'f', 'ls', 'rs', 'ob', 'ib', 'iy', 'lg', 'dr', 're')
  if not head[1] then return { 'missing' } end
  if head[1] ~= node or head[2] ~= fence then return { 'fenced' } end
  local prev, last, released = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local stored, base, bytes = tonumber(head[3]), tonumber(head[4]), tonumber(head[5])
  -- A later batch was kept meanwhile: there is nothing to take.
  if last < stored then return { 'kept', { ls = stored, rs = tonumber(head[4]), ob = tonumber(head[5]) }, '0' } end
  if stored ~= prev and stored ~= last then return { 'gap', head[3] } end

  local from = at + 8 + tonumber(ARGV[at + 7])
  local fieldsEnd = from - 1

  if released > base then
    if released >= stored then
      redis.call('DEL', KEYS[3])
      bytes = 0
    else
      bytes = bytes - shift(KEYS[3], released - base)
    end
    base = released
  end
  if last > stored then
    local first = last - (#ARGV - from)
    from = from + math.max(0, math.max(stored, base) + 1 - first)
    for i = from, #ARGV do bytes = bytes + #ARGV[i] end
    push(KEYS[3], ARGV, from)
  end
  local taken, inboxBytes = tonumber(head[6]), tonumber(head[7])
  if ARGV[at + 5] ~= '' and tonumber(ARGV[at + 5]) > taken then
    inboxBytes = inboxBytes - shift(KEYS[4], tonumber(ARGV[at + 5]) - taken)
    redis.call('HSET', KEYS[1], 'ib', ARGV[at + 5], 'iy', text(inboxBytes))
  end
  -- An older batch that comes late must not take back what a newer one has reserved.
  local reserved = ARGV[at + 6]
  if reserved ~= '' and tonumber(reserved) > tonumber(head[10] or '0') then
    redis.call('HSET', KEYS[1], 're', reserved)
  end
  local isShort = not head[8] or head[8] == ''
  for i = at + 9, fieldsEnd, 2 do isShort = isShort and #ARGV[i] <= LONG end
  if not isShort then
    local values = {}
    for i = at + 8, fieldsEnd do values[#values + 1] = ARGV[i] end
    put(values, head[8])
    fieldsEnd = at + 7
  end
  redis.call('HSET', KEYS[1], 'ls', ARGV[at + 3], 'rs', text(base), 'ob', text(bytes), 'at', text(now()),
    unpack(ARGV, at + 8, fieldsEnd))
  return { 'kept', { ls = last, rs = base, ob = bytes }, inboxBytes > 0 and '1' or '0' }
end
