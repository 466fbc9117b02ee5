-- Ends the leases of all holders.
-- KEYS: lock, group, line.  Answers 1 if there was a lease.
local now = clock()
local group = read_group(KEYS[2], KEYS[1], now, true)
expire(group, now)
local held, mark = 0, '1'
for _, one in ipairs(group.granted) do
    held = held + (one.reserved and 0 or 1)
    mark = one.mark or '2'
end
group.granted = {}
write_group(KEYS[2], group, now)
redis.call('DEL', KEYS[1])
pass_on(KEYS[1], KEYS[2], KEYS[3], mark, true)
return held > 0 and 1 or 0
