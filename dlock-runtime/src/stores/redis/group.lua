-- Prelude of the scripts for keys that have readers, permit holders or a queue.  The group of a key is one text,
-- `v1|seen|g owner kind token end claimant|…|w owner kind flags end claimant|…`: the first waiter's last sign of
-- life, the holders and the waiters, with times in microseconds of this server's clock.  The owner of a revoked
-- hold has a `~` before it.  A kind is `x` (exclusive), `s` (shared), or `p` and a number of permits.  A waiter's
-- flags are `f` (fair) or `n`, and `a` if it is absent.  An exclusive holder is stored in the lock itself.  The
-- rules are those of `lock_table/record.rs`.
local VERSION = 'v1'

local function is_owner(word)
    return word == '-' or (#word == 32 and not string.find(word, '%X'))
end

-- Reads the whole text, or returns false: nothing in a text of another form is trusted. Before there were versions,
-- the text began with `seen`.
local function read_records(group, text)
    local seen = false
    for record in string.gmatch(text .. '|', '([^|]*)|') do
        local what, revoked, owner, kind, third, time, claimant =
            string.match(record, '^([gw]) (~?)(%S+) (%w+) (%w+) (%d+) (%S+)$')
        local one = {owner = owner, kind = kind, ends = tonumber(time), claimant = claimant}
        local known = what and is_owner(owner) and (string.find(kind, '^[xs]$') or string.find(kind, '^p[1-9]%d*$'))
        if not seen then
            seen = string.find(record, '^%d+$') ~= nil
            if not seen and not (record == VERSION and group.version == nil) then
                return false
            end
            group.version, group.seen = record, seen and tonumber(record) or 0
        elseif known and what == 'g' and string.find(third, '^%d+$') then
            one.token, one.revoked = third, revoked == '~'
            table.insert(group.granted, one)
        elseif known and what == 'w' and string.find(third, '^[fn]a?$') then
            one.fair, one.absent = string.sub(third, 1, 1), string.sub(third, 2) == 'a'
            table.insert(group.queue, one)
        else
            return false
        end
    end
    return seen
end

-- A group that cannot be read is an error, except for an operator who inspects it or ends it (`looks`). They see
-- one holder that excludes others until the group expires.
local function read_group(name, lock, now, looks)
    local group = {seen = 0, granted = {}, queue = {}}
    local stored = name and redis.call('GET', name)
    if stored and not read_records(group, stored) then
        if not looks then
            local version = string.match(stored .. '|', '^(v%d+)|') or 'unknown'
            error('lock `' .. lock .. '`: its holders and waiters were written by another version of dlock (`'
                .. version .. '`, this one reads `' .. VERSION
                .. '`): update this process, or end the holds with `force_release`', 0)
        end
        local ends = now + math.max(redis.call('PTTL', name), 1) * 1000
        group.granted = {{owner = '-', kind = 'x', token = '0', ends = ends, claimant = '-'}}
        group.queue = {}
    end
    local held = redis.call('GET', lock)
    if held then
        local revoked, owner, token, mark, claimant = string.match(held, '^(~?)([^:]*):(%d+):(%d+):(.*)$')
        if not owner then
            -- A value in another form belongs to somebody else. It excludes others like any owner.
            revoked, owner, token, mark, claimant = string.match(held, '^~?'), '?', '0', '2', '-'
        end
        local one = {owner = owner, kind = 'x', token = token, mark = mark, claimant = claimant}
        one.lock, one.revoked, one.ends = true, revoked == '~', now + math.max(redis.call('PTTL', lock), 1) * 1000
        one.reserved = token == '0' and is_owner(owner) and owner ~= '-'
        table.insert(group.granted, one)
    end
    return group
end

local function find(list, owner)
    for index, one in ipairs(list) do
        if one.owner == owner then
            return index, one
        end
    end
end

-- The first waiter that is not absent, and its position.
local function head(group)
    for index, one in ipairs(group.queue) do
        if not one.absent then
            return one, index
        end
    end
end

-- Removes holders whose lease has ended and waiters whose wait is over. The first waiter becomes absent if it has
-- shown no sign of life for `ABSENT`.
local function expire(group, now)
    local first = head(group)
    for _, list in ipairs({group.granted, group.queue}) do
        for index = #list, 1, -1 do
            if list[index].ends <= now then
                table.remove(list, index)
            end
        end
    end
    local one = head(group)
    if one ~= first then
        group.seen = one and now or group.seen
    elseif one and now - group.seen >= ABSENT then
        one.absent = true
        one.ends = math.min(one.ends, now + KEPT)
        group.seen = now
    end
end

local function leave_queue(group, owner, now)
    local place, one = find(group.queue, owner)
    if place then
        if one == head(group) then
            group.seen = now
        end
        table.remove(group.queue, place)
    end
end

-- Stores the group for as long as it has a meaning. A queue whose first waiter shows no sign of life for 2 s is
-- abandoned.
local function write_group(name, group, now)
    local records, last = {VERSION, string.format('%.0f', group.seen)}, 0
    for _, one in ipairs(group.granted) do
        if not one.lock then
            local owner = (one.revoked and '~' or '') .. one.owner
            local record = string.format('g %s %s %s %.0f %s', owner, one.kind, one.token, one.ends, one.claimant)
            table.insert(records, record)
            last = math.max(last, one.ends)
        end
    end
    for _, one in ipairs(group.queue) do
        local flags = one.fair .. (one.absent and 'a' or '')
        local record = string.format('w %s %s %s %.0f %s', one.owner, one.kind, flags, one.ends, one.claimant)
        table.insert(records, record)
        last = math.max(last, math.min(one.ends, now + 2000000))
    end
    if last > now then
        local left = string.format('%.0f', math.ceil((last - now) / 1000))
        redis.call('SET', name, table.concat(records, '|'), 'PX', left)
    else
        redis.call('DEL', name)
    end
end
