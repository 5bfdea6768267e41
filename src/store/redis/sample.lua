-- Which session may go for a newcomer: of up to 32 one without any request since its creation, the oldest first, then
-- the one longest untouched. References are hashes, so the ones next to any reference are a random sample.
-- `first` is where in KEYS the pairs of due and index begin.

local function patience(unused, unused_us, untouched_us)
  return tonumber(unused and unused_us or untouched_us)
end

local function oldest(first, prefix, ref, unused_us, untouched_us)
  local best, wanted = nil, 32
  for i = first, #KEYS, 2 do
    local entries = page(KEYS[i + 1], prefix, ref, wanted)
    if #entries < wanted then
      local before = redis.call('ZRANGEBYLEX', KEYS[i + 1], '[' .. prefix, '(' .. prefix .. ref,
        'LIMIT', 0, wanted - #entries)
      for _, entry in ipairs(before) do
        entries[#entries + 1] = entry
      end
    end
    for _, entry in ipairs(entries) do
      local key = beside(KEYS[i], string.sub(entry, -64))
      local created, touched = unpack(redis.call('HMGET', key, 'b', 't'))
      local untouched = now_us - (tonumber(touched or created) or now_us)
      local unused = not touched
      if created and untouched >= patience(unused, unused_us, untouched_us)
        and (not best or (unused and not best.unused)
          or (unused == best.unused and untouched > best.untouched)) then
        best = { key = key, due = KEYS[i], index = KEYS[i + 1], unused = unused, untouched = untouched }
      end
    end
    wanted = wanted - #entries
    if wanted <= 0 then break end
  end
  return best
end
