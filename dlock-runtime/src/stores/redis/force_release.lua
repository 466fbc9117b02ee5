-- Ends the leases of all holders.
-- KEYS: lock; except on a Redlock node also the group.
-- ARGV: channel, tombstone in ms (0: none), its round.  Answers 1 if there was a lease.
if KEYS[2] then
    local now = clock()
    local group = read_group(KEYS[2], KEYS[1], now, true)
    expire(group, now)
    local held = #group.granted
    group.granted = {}
    write_group(KEYS[2], group, now)
    redis.call('DEL', KEYS[1])
    redis.pcall('PUBLISH', ARGV[1], '')
    return held > 0 and 1 or 0
end
local held = redis.call('GET', KEYS[1])
if not held then
    return 0
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[1], '')
if ARGV[2] ~= '0' then
    -- A Redlock node that has lost a lease acquires it again at a renewal. The tombstone prevents that.
    local owner = string.match(held, '^~?([^:]*):')
    redis.call('SET', KEYS[1] .. ':gone:' .. owner, ARGV[3], 'PX', ARGV[2])
end
return 1
