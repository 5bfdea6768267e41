-- What the scripts share. `due` and `index` are two keys of one shard; a session's key is beside them.

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)

-- Lua writes large numbers with an exponent, which no command takes.
local function int(number)
  return string.format('%.0f', number)
end

local function beside(due, ref)
  return string.sub(due, 1, -4) .. 's:' .. ref
end

-- Redis still shows a key in the very millisecond in which its time is up.
local function is_live(key)
  return redis.call('PEXPIRETIME', key) > now
end

-- `entry` is scope, owner and reference: 16, 16 and 64 digits.
local function forget(due, index, entry)
  redis.call('ZREM', due, entry)
  redis.call('ZREM', index, 'o' .. entry, 's' .. string.sub(entry, 1, 16) .. string.sub(entry, 33))
end

-- Ends a session, tells of it, and says whether it was live.
local function terminate(key, due, index, channel, reason)
  local owner_key = redis.call('HGET', key, 'm')
  if not owner_key then return false end
  local ref = string.sub(key, -64)
  local was_live = is_live(key)
  if was_live then
    redis.call('PUBLISH', channel, ref .. ':' .. reason)
  end
  redis.call('DEL', key)
  forget(due, index, owner_key .. ref)
  return was_live
end

-- Looks again at entries whose time may be up. Says whether there may be more of them.
local function sweep(due, index, at_most)
  local entries = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, at_most)
  for _, entry in ipairs(entries) do
    local key = beside(due, string.sub(entry, 33))
    local ends = redis.call('PEXPIRETIME', key)
    if ends > now and redis.call('HGET', key, 'm') == string.sub(entry, 1, 32) then
      redis.call('ZADD', due, int(ends), entry)
    else
      forget(due, index, entry)
    end
  end
  return #entries == at_most
end

-- How many entries of the index begin with this. What follows them is hexadecimal, so below 'g'.
local function count(index, prefix)
  return redis.call('ZLEXCOUNT', index, '[' .. prefix, '(' .. prefix .. 'g')
end

-- The first few entries of the index that begin with `prefix` and come after this reference.
local function page(index, prefix, after, at_most)
  return redis.call('ZRANGEBYLEX', index, '(' .. prefix .. after, '(' .. prefix .. 'g', 'LIMIT', 0, at_most)
end

local function row(key)
  local f = redis.call('HMGET', key, 'b', 'e', 's', 'p', 'i', 'n', 'r', 'v', 'w')
  return { int(now_us), redis.call('PEXPIRETIME', key), unpack(f, 1, 9) }
end
