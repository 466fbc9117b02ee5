-- Releases the lease of one of several holders, or abandons an acquire and its queue position. With a rest, the lease
-- stays that long, without an owner: the rest of its `min_hold`.
-- KEYS: lock, tombstone of this owner, group, line.
-- ARGV: owner, rest in ms (0: at once), channel, tombstone in ms (0: none).
-- Answers 1 released, 0 not held.
if ARGV[4] ~= '0' then
    redis.call('SET', KEYS[2], 0, 'PX', ARGV[4])
end
local now = clock()
local rest = tonumber(ARGV[2])
local group = read_group(KEYS[3], KEYS[1], now)
local queue = #group.queue
expire(group, now)
leave_queue(group, ARGV[1], now)
pcall(leave_line, KEYS[4], ARGV[1])
local place, own = find(group.granted, ARGV[1])
if own and own.lock then
    if rest > 0 then
        redis.call('SET', KEYS[1], '-:' .. own.token .. ':0:' .. own.claimant, 'PX', ARGV[2])
    else
        redis.call('DEL', KEYS[1])
    end
elseif own and rest > 0 then
    own.owner, own.revoked, own.ends = '-', false, now + rest * 1000
elseif own then
    table.remove(group.granted, place)
end
write_group(KEYS[3], group, now)
if own and own.lock and rest == 0 then
    pass_on(KEYS[1], KEYS[3], KEYS[4], own.mark, true)
elseif own or #group.queue < queue then
    redis.pcall('PUBLISH', ARGV[3], '')
end
return own and 1 or 0
