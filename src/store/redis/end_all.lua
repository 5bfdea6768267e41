-- KEYS  1, 2 due and index of a shard  3 when all of these were ended
-- ARGV  1 prefix of the index  2 the reference to begin after, or ''  3 at most how many  4 scope  5 principal, or '' for any
--       6 channel  7 reason  8 milliseconds to remember the end for, '' after the first page

if ARGV[8] ~= '' then
  redis.call('SET', KEYS[3], int(now_us), 'PX', ARGV[8])
end
local entries, ended, last = page(KEYS[2], ARGV[1], ARGV[2], ARGV[3]), 0, ''
for _, entry in ipairs(entries) do
  last = string.sub(entry, -64)
  local key = beside(KEYS[1], last)
  local scope, principal = unpack(redis.call('HMGET', key, 's', 'p'))
  if scope == ARGV[4] and (ARGV[5] == '' or principal == ARGV[5])
    and terminate(key, KEYS[1], KEYS[2], ARGV[6], ARGV[7]) then
    ended = ended + 1
  end
end
return { #entries, last, ended }
