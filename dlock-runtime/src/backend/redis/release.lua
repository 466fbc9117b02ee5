-- Ends the lease if this owner holds it, at once or after a rest that nobody holds.
-- KEYS: lock, tombstone of this owner.
-- ARGV: owner, rest in ms (0: at once), channel, tombstone in ms (0: none).
-- Answers 1 released, 0 not held.
if ARGV[4] ~= '0' then
    -- An acquire of this owner was given up and may be executed after this: it must not grant.
    redis.call('SET', KEYS[2], '1', 'PX', ARGV[4])
end
local held = redis.call('GET', KEYS[1])
if not held then
    return 0
end
local owner, token = string.match(held, '^([^:]*):(%d+)$')
if owner ~= ARGV[1] then
    return 0
end
if ARGV[2] ~= '0' then
    redis.call('SET', KEYS[1], '-:' .. token, 'PX', ARGV[2])
else
    redis.call('DEL', KEYS[1])
    redis.call('PUBLISH', ARGV[3], '')
end
return 1
