-- KEYS  1, 2 due and index of a shard
-- ARGV  1 prefix of the index  2 the reference to begin after, or ''  3 at most how many

local entries, last, rows = page(KEYS[2], ARGV[1], ARGV[2], ARGV[3]), '', {}
for _, entry in ipairs(entries) do
  last = string.sub(entry, -64)
  local key = beside(KEYS[1], last)
  if is_live(key) then
    rows[#rows + 1] = { last, row(key) }
  end
end
return { #entries, last, rows }
