-- Prelude: the line of those that wait for a lock with plain claims, a hash. It has a number for each waiter, which
-- leads to its owner, the `first` and the `last` of these numbers, and for each owner
-- `number asked due ends skipped ttl client-info counted channel`, with times in microseconds of this server's clock:
-- when it asked last, when it counts as gone unless it asks again, when its wait is over, and when a release first
-- failed to notify it (0: never). `counted` is 1 if the number of subscribers that a message reaches is known.
-- The first waiter asks every `SIGN`, those behind it less often. A waiter that is this late is gone.
local SIGN, LONGEST_SIGN, LATE = 500000, 1000000, 500000

local function first_in_line(line)
    return tonumber(redis.call('HGET', line, 'first') or 1)
end

local function last_in_line(line)
    return tonumber(redis.call('HGET', line, 'last') or 0)
end

local function read_waiter(text)
    local one = {}
    one.number, one.asked, one.due, one.ends, one.skipped, one.ttl, one.client_info, one.counted, one.channel =
        string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) ([01]) (.*)$')
    one.asked, one.due, one.ends = tonumber(one.asked), tonumber(one.due), tonumber(one.ends)
    one.skipped = tonumber(one.skipped)
    return one.number and one
end

local function write_waiter(line, owner, one)
    redis.call('HSET', line, owner, string.format('%s %.0f %.0f %.0f %.0f %s %s %s %s', one.number, one.asked, one.due,
        one.ends, one.skipped, one.ttl, one.client_info, one.counted, one.channel))
end

-- Numbers the waiters anew if most numbers belong to nobody any more.
local function close_up(line, first, last)
    local waiters = (redis.call('HLEN', line) - 2) / 2
    if last - first < 4 * waiters + 256 then
        return
    end
    local to = first
    for from = first, last do
        local owner = redis.call('HGET', line, from)
        local one = owner and read_waiter(redis.call('HGET', line, owner))
        if one then
            redis.call('HDEL', line, from)
            one.number = to
            redis.call('HSET', line, to, owner)
            write_waiter(line, owner, one)
            to = to + 1
        end
    end
    redis.call('HSET', line, 'last', to - 1)
end

-- Joins the line, or keeps the position. `one` has what the waiter says of itself. Answers when it is to ask again, in
-- microseconds.
local function join_line(line, owner, one, now)
    local before, first = read_waiter(redis.call('HGET', line, owner)), first_in_line(line)
    one.skipped = before and before.skipped or 0
    if before then
        one.number = before.number
    else
        close_up(line, first, last_in_line(line))
        one.number = redis.call('HINCRBY', line, 'last', 1)
    end
    redis.call('PEXPIRE', line, (LONGEST_SIGN + LATE) / 1000)
    redis.call('HSET', line, one.number, owner)
    local position = math.max(one.number - first + 1, 1)
    local sign = math.min(position * SIGN, LONGEST_SIGN)
    one.asked, one.due = now, now + sign + LATE
    write_waiter(line, owner, one)
    return sign
end

local function leave_line(line, owner)
    local one = read_waiter(redis.call('HGET', line, owner))
    if one then
        redis.call('HDEL', line, owner, one.number)
    end
end
