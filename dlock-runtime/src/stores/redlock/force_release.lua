-- Ends the lease on a Redlock node. A node that has lost a lease acquires it again at a renewal; the tombstone
-- prevents that.
-- KEYS: lock.  ARGV: channel, tombstone in ms, its round.  Answers 1 if there was a lease.
local held = redis.call('GET', KEYS[1])
if not held then
    return 0
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[1], '')
local owner = string.match(held, '^~?([^:]*):')
redis.call('SET', KEYS[1] .. ':gone:' .. owner, ARGV[3], 'PX', ARGV[2])
return 1
