-- KEYS  1 the session  2, 3 due and index of its shard
-- ARGV  1 microseconds untouched to be ended for another  2 channel

local created, touched = unpack(redis.call('HMGET', KEYS[1], 'b', 't'))
local last = tonumber(touched or created)
if not last or now_us - last < tonumber(ARGV[1]) then return 0 end
return terminate(KEYS[1], KEYS[2], KEYS[3], ARGV[2], 'evicted') and 1 or 0
