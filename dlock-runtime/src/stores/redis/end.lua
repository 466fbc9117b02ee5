-- Releases the lease of this owner, revoked or not, and leaves what a plain release does not: with a rest, the lock
-- stays busy that long, without an owner (the rest of its `min_hold`); with a tombstone, an abandoned acquire of this
-- owner that is executed later is not granted.
-- KEYS: lock, tombstone of this owner, group, line.
-- ARGV: owner, rest in ms (0: at once), tombstone in ms (0: none).
-- Answers 1 released, 0 not held.
if ARGV[3] ~= '0' then
    redis.call('SET', KEYS[2], 0, 'PX', ARGV[3])
    pcall(leave_line, KEYS[4], ARGV[1])
end
local held = redis.call('GET', KEYS[1])
local owner, token, mark, client_info
if held then
    owner, token, mark, client_info = string.match(held, '^~?([^:]*):(%d+):(%d+):(.*)$')
end
if owner ~= ARGV[1] then
    return 0
end
if ARGV[2] ~= '0' then
    redis.call('SET', KEYS[1], '-:' .. token .. ':0:' .. client_info, 'PX', ARGV[2])
else
    redis.call('DEL', KEYS[1])
    pass_on(KEYS[1], KEYS[3], KEYS[4], mark, true)
end
return 1
