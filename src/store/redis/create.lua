-- KEYS  1 the session  2, 3 when all of the scope's, all of the owner's were ended
--       4, 5 due and index of its shard  6.. due and index of the other shards, if they are to be counted
-- ARGV  1 scope and owner  2 milliseconds until it ends  3 of which it may live, or ''  4 milliseconds that the
--       index outlives it  5 microseconds since the creation began
--       6 limit of the scope, or ''  7 how many it has elsewhere  8, 9 the same of the owner
--       10, 11 microseconds unused, untouched to be ended for another, or ''  12 scope and owner of those that go for the
--       scope's limit  13 channel  14 '' to make room only  15.. fields and values
-- It answers what became of it, how much room is left, who was evicted, and the microseconds since all were ended.

if is_live(KEYS[1]) then return { 'exists', -1, false, -1 } end
local all_ended = -1
for _, at in ipairs(redis.call('MGET', KEYS[2], KEYS[3])) do
  if at then
    local since = now_us - at
    if since < tonumber(ARGV[5]) then return { 'revoked', -1, false, since } end
    if all_ended == -1 or since < all_ended then all_ended = since end
  end
end
terminate(KEYS[1], KEYS[4], KEYS[5], ARGV[13], '')

local owner_key, ref, inserts = ARGV[1], string.sub(KEYS[1], -64), ARGV[14] ~= ''
local scope = string.sub(owner_key, 1, 16)

local more = false
for i = 4, #KEYS, 2 do
  more = sweep(KEYS[i], KEYS[i + 1], 64) or more
end

-- The owner's limit first: who is ended for it leaves room in the scope too.
local victim, left = nil, -1
for _, limit in ipairs({
  { 'full:principal', 'o' .. owner_key, ARGV[8], ARGV[9], 'o' .. owner_key },
  { 'full:total', 's' .. scope, ARGV[6], ARGV[7], 'o' .. ARGV[12] },
}) do
  local name, prefix, most, there, may_go = unpack(limit)
  if most ~= '' then
    local has = tonumber(there)
    for i = 5, #KEYS, 2 do
      has = has + count(KEYS[i], prefix)
    end
    if victim then has = has - 1 end
    if has >= tonumber(most) and not victim then
      if more then return { 'again', -1, false, -1 } end
      victim = ARGV[10] ~= '' and oldest(4, may_go, ref, ARGV[10], ARGV[11]) or nil
      if not victim then return { name, -1, false, -1 } end
      has = has - 1
    end
    if name == 'full:total' and not more then left = math.max(most - has - (inserts and 1 or 0), 0) end
  end
end

if inserts then
  local ends = now + ARGV[2]
  local lease = ends + ARGV[4]
  redis.call('HSET', KEYS[1], 'm', owner_key, 'b', int(now_us), 'l', int(lease), unpack(ARGV, 15))
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'e', int(now + ARGV[3]))
  end
  redis.call('PEXPIREAT', KEYS[1], int(ends))
  redis.call('ZADD', KEYS[4], int(ends), owner_key .. ref)
  redis.call('ZADD', KEYS[5], 0, 'o' .. owner_key .. ref, 0, 's' .. scope .. ref)
  for i = 4, 5 do
    if redis.call('PEXPIRETIME', KEYS[i]) < lease then
      redis.call('PEXPIREAT', KEYS[i], int(lease))
    end
  end
end
if victim then
  terminate(victim.key, victim.due, victim.index, ARGV[13], 'evicted')
end
return { 'new', left, victim and string.sub(victim.key, -64) or false, all_ended }
