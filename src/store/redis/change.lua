-- KEYS  1 the session
-- ARGV  1 scope  2 principal  3 the values it has, preceded by '=', or ''  4 the values it gets  5 channel

local f = redis.call('HMGET', KEYS[1], 's', 'p', 'w')
if f[1] ~= ARGV[1] or f[2] ~= ARGV[2] or not is_live(KEYS[1]) then return 0 end
if (f[3] and '=' .. f[3] or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'w', ARGV[4])
redis.call('PUBLISH', ARGV[5], string.sub(KEYS[1], -64) .. ':changed')
return 1
