-- Ends the leases of all holders.
-- KEYS: lock, group, line.  Answers 1 if there was a lease.
local now = clock()
local group = read_group(KEYS[2], KEYS[1], now, true)
expire(group, now)
local held = #group.granted
group.granted = {}
write_group(KEYS[2], group, now)
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', KEYS[1] .. ':free', '')
pass_on(KEYS[1], KEYS[2], KEYS[3], '1')
return held > 0 and 1 or 0
