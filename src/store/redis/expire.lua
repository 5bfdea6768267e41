-- KEYS  1 the session  2, 3 due and index of its shard

if is_live(KEYS[1]) then return { row(KEYS[1]), redis.call('HGET', KEYS[1], 'j') } end
-- What is not live is not announced.
terminate(KEYS[1], KEYS[2], KEYS[3], '', '')
return false
