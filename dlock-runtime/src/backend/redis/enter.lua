-- Takes the lock beside those who share it and in the order of those who wait, or a place in the queue.
-- KEYS: lock, last token, tombstone of this owner, group.
-- ARGV: owner, ttl in ms, kind, 'f' (fair) or 'n', how much longer its caller waits in us, claimant.
-- Answers {1, token, other} granted, {0, ms until a look is worth while, other} busy, {6, the same, other}
-- busy with a place in the queue, {2, 0, ''} given up before; `other` is another number of permits by which
-- somebody counts, or ''.
local owner, ttl, kind, fair, patience = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local claimant = ARGV[6]
local now = clock()
local group = read_group(KEYS[4], KEYS[1], now)
expire(group, now)

-- In the order in which they are stored: the lock's own holder counts nothing.
local function other_permits()
    for _, list in ipairs({group.granted, group.queue}) do
        for _, one in ipairs(list) do
            local number = string.match(one.kind, '^p(%d+)$')
            if number and string.sub(kind, 1, 1) == 'p' and one.kind ~= kind then
                return number
            end
        end
    end
    return ''
end

local function hold(token)
    if kind == 'x' then
        redis.call('SET', KEYS[1], table.concat({owner, token, 0, claimant}, ':'), 'PX', ARGV[2])
    end
    write_group(KEYS[4], group, now)
    return {1, tonumber(token), other_permits()}
end

local _, own = find(group.granted, owner)
if own and own.revoked then
    return {0, math.ceil((own.ends - now) / 1000), ''}
elseif own then
    own.ends = now + ttl * 1000
    return hold(own.token)
end
if redis.call('GET', KEYS[3]) then
    return {2, 0, ''}
end

local place, waiter = find(group.queue, owner)
if waiter and waiter.absent then
    waiter.absent, waiter.ends = false, now + patience
    if head(group) == waiter then
        group.seen = now
    end
end

-- Who stands before it in the queue counts as if they had entered. A waiter that is not fair is a writer,
-- whom only those let go first that could share.
local others = {}
for _, one in ipairs(group.granted) do
    table.insert(others, one.kind)
end
for index, one in ipairs(group.queue) do
    if place and index >= place then
        break
    end
    if not one.absent and (one.fair == 'f' or kind ~= 'x') then
        table.insert(others, one.kind)
    end
end

local function fits()
    local permits = tonumber(string.match(kind, '^p(%d+)$') or '0')
    for _, other in ipairs(others) do
        local both_share = kind == 's' and other == 's'
        local both_count = permits > 0 and string.sub(other, 1, 1) == 'p'
        if not (both_share or both_count) then
            return false
        end
    end
    return permits == 0 or #others < permits
end

if fits() then
    local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now)
    remember_token(KEYS[2], token, now)
    leave_queue(group, owner, now)
    token = string.format('%.0f', token)
    if kind ~= 'x' then
        local ends = now + ttl * 1000
        table.insert(group.granted, {owner = owner, kind = kind, token = token, ends = ends, claimant = claimant})
    end
    return hold(token)
end

if patience == 0 then
    leave_queue(group, owner, now)
    place = nil
elseif not place then
    local shared = false
    for _, one in ipairs(group.granted) do
        shared = shared or one.kind ~= 'x'
    end
    if fair == 'f' or (kind == 'x' and shared) then
        if not head(group) then
            group.seen = now
        end
        local one = {owner = owner, kind = kind, fair = fair, absent = false, claimant = claimant}
        one.ends = now + patience
        table.insert(group.queue, one)
        place = #group.queue
    end
end
local first, first_place = head(group)
local is_first = place and place == first_place
if is_first and now - group.seen >= HEARTBEAT then
    group.seen = now
end
write_group(KEYS[4], group, now)

-- When a lease ends, when the first waiter may be passed over, when it is time to show oneself.
local look = math.huge
for _, one in ipairs(group.granted) do
    look = math.min(look, one.ends - now)
end
if is_first then
    look = math.min(look, HEARTBEAT)
elseif first then
    look = math.min(look, LOOK, group.seen + ABSENT - now)
end
return {place and 6 or 0, look == math.huge and -1 or math.ceil(look / 1000), other_permits()}
