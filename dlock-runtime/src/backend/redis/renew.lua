-- Extends the lease to a full ttl if this owner holds it.
-- KEYS: lock.  ARGV: owner, ttl in ms.  Answers 1 renewed, 0 not held.
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^([^:]*):') == ARGV[1] then
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
