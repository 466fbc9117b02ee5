-- Prelude: hands a lock that has just become free over to the waiter that is first in line. The lock is reserved for it,
-- for as long as `RESERVED` in ms, and it is notified. It then acquires the lock as any owner whose reply was lost.
-- The record of a reservation has the token 0.
local RESERVED, LONGEST_SKIP = 400, 1000000

-- Whether to reserve the lock for this waiter, whose message reached so many subscribers. A waiter that messages do not
-- reach is skipped, and keeps its position. If it still asks after `LONGEST_SKIP`, it is due all the same.
local function is_due(one, reached, now)
    return reached > 0 or one.counted == '0'
        or one.skipped > 0 and now - one.skipped >= LONGEST_SKIP and one.asked - one.skipped >= LONGEST_SKIP / 2
end

-- Moves the waiters that stay to the end of the numbers that were looked at, so that no gaps remain behind them. Answers
-- the number of the first of them.
local function close_gaps(line, staying, last)
    local number = last
    for at = #staying, 1, -1 do
        local owner, one = staying[at].owner, staying[at].one
        if tonumber(one.number) ~= number then
            redis.call('HDEL', line, one.number)
            one.number = number
            redis.call('HSET', line, number, owner)
            write_waiter(line, owner, one)
        end
        number = number - 1
    end
    return number + 1
end

-- Looks for the first waiter that is there. Without `reserves`, others may want the lock as much as those in line, and
-- the waiter is only notified.
local function hand_over(lock, line, reserves)
    local now, begin, last = clock(), first_in_line(line), last_in_line(line)
    local number, staying, is_done = begin, {}, false
    while not is_done and number <= last and number - begin < 1024 and #staying < 64 do
        local owner = redis.call('HGET', line, number)
        local one = owner and read_waiter(redis.call('HGET', line, owner) or '')
        local stays = one and one.due > now and one.ends > now
        local reached = stays and redis.pcall('PUBLISH', one.channel, lock)
        if type(reached) == 'table' then
            -- The user may not publish, so the waiters poll.
            break
        elseif stays and not reserves then
            is_done = reached > 0 or one.counted == '0'
        elseif stays and is_due(one, reached, now) then
            local millis = math.min(tonumber(one.ttl), RESERVED)
            redis.call('SET', lock, owner .. ':0:1:' .. one.client_info, 'PX', millis)
            stays, is_done = false, true
        elseif stays and one.skipped == 0 then
            one.skipped = now
            write_waiter(line, owner, one)
        end
        if stays then
            table.insert(staying, {owner = owner, one = one})
        else
            redis.call('HDEL', line, number, owner or number)
        end
        number = number + 1
    end
    local first = close_gaps(line, staying, number - 1)
    if first > last then
        redis.call('DEL', line)
    elseif first > begin then
        redis.call('HSET', line, 'first', first)
    end
end

-- For a lock that was just released, whose record had this mark. If others than those in line wait for the lock, it is
-- free for all of them.
local function pass_on(lock, group, line, mark)
    if redis.call('EXISTS', line) == 1 then
        local reserves = mark ~= '2' and redis.call('EXISTS', group) == 0
        -- If the user may not use hashes, the lock is free all the same.
        pcall(hand_over, lock, line, reserves)
    end
end
