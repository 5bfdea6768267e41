-- KEYS  1, 2 due and index of a shard
-- ARGV  1, 2 prefix of the index

if sweep(KEYS[1], KEYS[2], 256) then return { 1, 0, 0 } end
return { 0, count(KEYS[2], ARGV[1]), count(KEYS[2], ARGV[2]) }
