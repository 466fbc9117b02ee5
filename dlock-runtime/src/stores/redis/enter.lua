-- Acquires all of these locks or none, with readers, permits and queues taken into account, or takes positions in
-- their queues.
-- KEYS: the counter of tokens; for each lock in the locks' order: lock, tombstone of its owner, group, last token
-- (which only earlier versions of dlock have stored), line.
-- ARGV: what `draw` takes; for each lock: owner, ttl in ms, kind, 'f' (fair) or 'n', remaining wait of the caller in
-- us, client info.
-- Answers {1, 0, other, tokens} granted, {0, ms until the next poll, other, {at}} busy at that lock, {6, ms until the
-- next poll, other, {at}} busy with a queue position, {2, 0, '', {at}} abandoned earlier. `other` is a different number
-- of permits that somebody else uses, or ''.
local now = clock()
local claims = {}
for at = 1, (#KEYS - 1) / 5 do
    local key, arg = at * 5 - 4, at * 6 - 4
    local claim = {lock = KEYS[key + 1], gone = KEYS[key + 2], name = KEYS[key + 3], last_token = KEYS[key + 4]}
    claim.owner, claim.ttl, claim.kind = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    claim.fair, claim.patience, claim.claimant = ARGV[arg + 4], tonumber(ARGV[arg + 5]), ARGV[arg + 6]
    if claim.kind == 'x' and claim.fair == 'n' then
        -- From now on the group decides when it is granted the lock.
        pcall(leave_line, KEYS[key + 5], claim.owner)
    end
    claim.group = read_group(claim.name, claim.lock, now)
    expire(claim.group, now)
    local _, own = find(claim.group.granted, claim.owner)
    claim.own = own
    if not own and redis.call('GET', claim.gone) then
        return {2, 0, '', {at}}
    end
    claims[at] = claim
end

-- The first one in stored order. An exclusive holder has no number of permits.
local function other_permits()
    for _, claim in ipairs(claims) do
        for _, list in ipairs({claim.group.granted, claim.group.queue}) do
            for _, one in ipairs(list) do
                local number = string.match(one.kind, '^p(%d+)$')
                if number and string.sub(claim.kind, 1, 1) == 'p' and one.kind ~= claim.kind then
                    return number
                end
            end
        end
    end
    return ''
end

local function fits(kind, others)
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

-- May the claim enter, or does it hold the lock already? A waiter that asks is not absent.
local function is_open(claim)
    local group = claim.group
    if claim.own then
        return not claim.own.revoked
    end
    local place, waiter = find(group.queue, claim.owner)
    if waiter and waiter.absent then
        waiter.absent, waiter.ends = false, now + claim.patience
        if head(group) == waiter then
            group.seen = now
        end
    end
    -- Waiters ahead in the queue count as if they had entered. A waiter that is not fair is a writer, and only
    -- claims that are not exclusive let it go first.
    local others = {}
    for _, one in ipairs(group.granted) do
        table.insert(others, one.kind)
    end
    for index, one in ipairs(group.queue) do
        if place and index >= place then
            break
        end
        if not one.absent and (one.fair == 'f' or claim.kind ~= 'x') then
            table.insert(others, one.kind)
        end
    end
    return fits(claim.kind, others)
end

local function enter(claim)
    local group, own, ends = claim.group, claim.own, now + tonumber(claim.ttl) * 1000
    local token, is_announced
    if own and own.token ~= '0' then
        own.ends, token = ends, answer_again(own.token)
    else
        -- With the token 0, the lock is reserved for it.
        is_announced = own and own.mark == '2'
        own = nil
        token = string.format('%.0f', draw_above(tonumber(redis.call('GET', claim.last_token)) or 0))
        leave_queue(group, claim.owner, now)
        if claim.kind ~= 'x' then
            own = {owner = claim.owner, kind = claim.kind, token = token, ends = ends, claimant = claim.claimant}
            table.insert(group.granted, own)
        end
    end
    if own and own.lock then
        redis.call('PEXPIRE', claim.lock, claim.ttl)
    elseif claim.kind == 'x' then
        -- Its release is announced if others are in the queue.
        local record = table.concat({claim.owner, token, (is_announced or #group.queue > 0) and 2 or 1, claim.claimant}, ':')
        redis.call('SET', claim.lock, record, 'PX', claim.ttl)
    end
    return token
end

-- Takes a queue position if the claim is of a kind that queues. Returns when to poll next (when a lease ends, when
-- the first waiter may count as absent, or when a heartbeat is due), and the queue position, if any.
local function wait(claim)
    local group = claim.group
    local place = find(group.queue, claim.owner)
    if claim.patience == 0 then
        leave_queue(group, claim.owner, now)
        place = nil
    elseif not place then
        local shared = false
        for _, one in ipairs(group.granted) do
            shared = shared or one.kind ~= 'x'
        end
        if claim.fair == 'f' or (claim.kind == 'x' and shared) then
            if not head(group) then
                group.seen = now
            end
            local one = {owner = claim.owner, kind = claim.kind, fair = claim.fair, claimant = claim.claimant}
            one.absent, one.ends = false, now + claim.patience
            table.insert(group.queue, one)
            place = #group.queue
        end
    end
    local first, first_place = head(group)
    local is_first = place and place == first_place
    if is_first and now - group.seen >= HEARTBEAT then
        group.seen = now
    end
    local look = math.huge
    for _, one in ipairs(group.granted) do
        look = math.min(look, one.ends - now)
    end
    if is_first then
        look = math.min(look, HEARTBEAT)
    elseif first then
        look = math.min(look, LOOK, group.seen + ABSENT - now)
    end
    return look, place
end

local closed
for at, claim in ipairs(claims) do
    if not is_open(claim) then
        closed = closed or at
    end
end
local answer
if closed then
    -- Queues for the first lock that is closed and for the open ones before it, as if the locks were acquired one
    -- after the other, so that two waiters never wait for each other.
    local look, queued = math.huge, 0
    for at = 1, closed do
        local own = claims[at].own
        local held = not own and redis.call('GET', claims[at].lock)
        if held then
            announce_release(claims[at].lock, held)
        end
        if own and own.revoked then
            look = math.min(look, own.ends - now)
        elseif not own then
            local look_at, place = wait(claims[at])
            look, queued = math.min(look, look_at), place and 6 or queued
        end
    end
    answer = {queued, look == math.huge and -1 or math.ceil(look / 1000), other_permits(), {closed}}
else
    local tokens = {}
    for at, claim in ipairs(claims) do
        tokens[at] = enter(claim)
    end
    answer = {1, 0, other_permits(), tokens}
end
for _, claim in ipairs(claims) do
    write_group(claim.name, claim.group, now)
end
return answer
