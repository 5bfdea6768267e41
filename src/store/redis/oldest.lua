-- KEYS  1, 2 due and index of a shard
-- ARGV  1 prefix of the index  2 the newcomer  3, 4 microseconds unused, untouched to be ended for another

local victim = oldest(1, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if not victim then return false end
return { victim.unused and 1 or 0, int(victim.untouched), string.sub(victim.key, -64) }
