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

-- Reserves a free lock for the first waiter in line that is there. Answers whether it did, and whether there may be
-- waiters that it has not looked at.
local function hand_over(lock, line)
    local now, begin, last = clock(), first_in_line(line), last_in_line(line)
    local number, staying, is_reserved, is_refused = begin, {}, false, false
    while not (is_reserved or is_refused) and number <= last and number - begin < 1024 and #staying < 64 do
        local owner = redis.call('HGET', line, number)
        local one = owner and read_waiter(redis.call('HGET', line, owner))
        local stays = one and one.due > now and one.ends > now
        local reached = stays and redis.pcall('PUBLISH', one.channel, lock)
        if type(reached) == 'table' then
            -- The user may not publish, so the waiters poll.
            is_refused = true
        elseif stays and is_due(one, reached, now) then
            stays, is_reserved = false, true
        elseif stays and one.skipped == 0 then
            one.skipped = now
            write_waiter(line, owner, one)
        end
        if stays then
            table.insert(staying, {owner = owner, one = one})
        elseif owner then
            redis.call('HDEL', line, number, owner)
        end
        if is_reserved then
            local millis = math.min(tonumber(one.ttl), RESERVED)
            redis.call('SET', lock, owner .. ':0:1:' .. one.client_info, 'PX', millis, 'NX')
        end
        number = number + 1
    end
    local first = close_gaps(line, staying, number - 1)
    if first > last then
        redis.call('DEL', line)
    elseif first > begin then
        redis.call('HSET', line, 'first', first)
    end
    return is_reserved, number <= last
end

-- For a lock that was just released, whose record had this mark. Where others than those in line want the lock too, it is
-- free, and all waiters are notified, as they are if nobody in line can be found, and with `is_announced` if nobody is in
-- line.
local function pass_on(lock, group, line, mark, is_announced)
    if mark == '1' and redis.call('EXISTS', group) == 0 then
        if redis.call('EXISTS', line) == 1 then
            -- Fails if the user may not use hashes.
            local is_done, is_reserved, is_cut_short = pcall(hand_over, lock, line)
            if is_done and is_reserved then
                return
            end
            is_announced = is_announced or not is_done or is_cut_short
        end
    else
        is_announced = true
    end
    if is_announced then
        -- If the user may not publish, the lock is free all the same.
        redis.pcall('PUBLISH', lock .. ':free', '')
    end
end
