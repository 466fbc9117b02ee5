-- Reads the holders and the waiters.
-- KEYS: lock; except on a Redlock node also the group and the line.
-- Answers the holders, {owner, kind, token, ms left, client info} each, and the waiters, {owner, kind, client info}
-- each. The owner of a revoked hold has a `~` before it.
local now = clock()
local group = read_group(KEYS[2], KEYS[1], now, true)
expire(group, now)
local holders, waiters = {}, {}
for _, one in ipairs(group.granted) do
    if one.reserved then
        -- It does not hold the lock yet.
        table.insert(waiters, {one.owner, one.kind, one.claimant})
    else
        local owner = (one.revoked and '~' or '') .. one.owner
        table.insert(holders, {owner, one.kind, one.token, math.ceil((one.ends - now) / 1000), one.claimant})
    end
end
for _, one in ipairs(group.queue) do
    table.insert(waiters, {one.owner, one.kind, one.claimant})
end
-- Those in line come after the queue, which goes first.
pcall(function()
    local first = first_in_line(KEYS[3])
    for number = first, math.min(last_in_line(KEYS[3]), first + 65536) do
        local owner = redis.call('HGET', KEYS[3], number)
        local one = owner and read_waiter(redis.call('HGET', KEYS[3], owner))
        if one and one.due > now and one.ends > now then
            table.insert(waiters, {owner, 'x', one.client_info})
        end
    end
end)
return {holders, waiters}
