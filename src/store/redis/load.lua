-- KEYS  1 the session

if not is_live(KEYS[1]) then return false end
return { row(KEYS[1]), redis.call('HGET', KEYS[1], 'j') }
