-- KEYS  1 the session  2, 3 due and index of its shard
-- ARGV  1 scope  2 principal  3 idle time in milliseconds  4 to claim: the new owner's scope and owner, else ''
--       5 channel, to claim

local f = redis.call('HMGET', KEYS[1], 's', 'p', 'b', 'e', 'i', 'n', 'r', 'v', 'l', 't', 'w')
if f[1] ~= ARGV[1] or (f[2] ~= ARGV[2] and (ARGV[4] == '' or f[2] ~= '-')) then return false end

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local ends, life_ends = redis.call('PEXPIRETIME', KEYS[1]), tonumber(f[4] or '')
if ends <= now or (life_ends and life_ends <= now) then return false end

-- `t` is a time after which it was not touched. Until then, and while the idle time is left, there is nothing to write.
if ARGV[4] ~= '' or now_us >= (tonumber(f[10]) or 0) or ends < now + ARGV[3] then
  local grace = math.floor(ARGV[3] / 16)
  local till = now + ARGV[3] + grace
  if life_ends and till > life_ends then till = life_ends end
  if till > ends then
    ends = till
    redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends))
  end
  local latest_touch = math.max(now_us + grace * 1000, tonumber(f[10]) or 0)
  redis.call('HSET', KEYS[1], 't', string.format('%.0f', latest_touch))

  -- The index outlives every session in it, by so much that this is seldom due.
  if ends > (tonumber(f[9]) or 0) then
    local lease = string.format('%.0f', ends + ARGV[3] / 4)
    redis.call('PEXPIREAT', KEYS[2], lease, 'GT')
    redis.call('PEXPIREAT', KEYS[3], lease, 'GT')
    redis.call('HSET', KEYS[1], 'l', lease)
  end
end

if f[2] ~= ARGV[2] then
  local ref, old = string.sub(KEYS[1], -64), redis.call('HGET', KEYS[1], 'm')
  -- Added before removed: an empty key would be gone, and its time with it.
  redis.call('ZADD', KEYS[2], string.format('%.0f', ends), ARGV[4] .. ref)
  redis.call('ZADD', KEYS[3], 0, 'o' .. ARGV[4] .. ref)
  redis.call('ZREM', KEYS[2], old .. ref)
  redis.call('ZREM', KEYS[3], 'o' .. old .. ref)
  redis.call('HSET', KEYS[1], 'p', ARGV[2], 'm', ARGV[4])
  redis.call('PUBLISH', ARGV[5], ref .. ':changed')
end

return { string.format('%.0f', now_us), ends, f[3], f[4], ARGV[1], ARGV[2], f[5], f[6], f[7], f[8], f[11] }
