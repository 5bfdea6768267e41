-- KEYS  1 the session  2, 3 due and index of its shard
-- ARGV  1 channel  2 reason  3 the scope it must be in, preceded by '=', or ''  4 the milliseconds that it may have left, or ''

if ARGV[3] ~= '' and '=' .. (redis.call('HGET', KEYS[1], 's') or '') ~= ARGV[3] then return 0 end
if ARGV[4] ~= '' and redis.call('PEXPIRETIME', KEYS[1]) > now + tonumber(ARGV[4]) then return 0 end
return terminate(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]) and 1 or 0
