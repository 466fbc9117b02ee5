-- Renews the lease of a reader or permit holder.
-- KEYS: lock, group.  ARGV: owner, ttl in ms.  Answers 1 renewed, 0 not held.
local now = clock()
local group = read_group(KEYS[2], KEYS[1], now)
expire(group, now)
local _, own = find(group.granted, ARGV[1])
if not own or own.lock or own.revoked then
    return 0
end
own.ends = now + tonumber(ARGV[2]) * 1000
write_group(KEYS[2], group, now)
return 1
