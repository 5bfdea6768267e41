-- KEYS  1 the session  2, 3 due and index of its shard
-- ARGV  1, 2 microseconds unused, untouched to be ended for another  3 channel  4 the owner it must have: scope and owner

local created, touched, owner = unpack(redis.call('HMGET', KEYS[1], 'b', 't', 'm'))
local last = tonumber(touched or created)
if not last or owner ~= ARGV[4] or now_us - last < patience(not touched, ARGV[1], ARGV[2]) then return 0 end
return terminate(KEYS[1], KEYS[2], KEYS[3], ARGV[3], 'evicted') and 1 or 0
