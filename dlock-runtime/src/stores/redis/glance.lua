-- Answers `enter.lua`'s usual request at little cost: an exclusive claim that has a place in the queue asks again, a fair
-- waiter is ahead of it, and the first waiter is alive. Then nothing changes for the claim, and the text of a long queue
-- need not be read and written. The first waiter does what is due.
-- KEYS and ARGV: see there.
local function glance(text, owner, now)
    local place = string.find(text, '|w ' .. owner .. ' ', 1, true)
    local flags = place and string.match(text, '^|w %x+ x (%l+) ', place)
    local seen = tonumber(string.match(text, '^v1|(%d+)|'))
    if not (flags == 'f' or flags == 'n') or not seen or now - seen >= 2 * HEARTBEAT then
        return nil
    end
    local first_fair = string.find(text, '|w %x+ %w+ f %d')
    if not first_fair or first_fair >= place then
        return nil
    end
    local at, ahead = 0, 0
    repeat
        at, ahead = string.find(text, '|w ', at + 1, true), ahead + 1
    until at == place or (ahead - 1) * LOOK >= LONGEST_LOOK
    -- The waiter that is next watches over the first one.
    return math.min(ahead == 2 and seen + ABSENT - now or LONGEST_LOOK, (ahead - 1) * LOOK)
end

if #KEYS == 6 and ARGV[5] == 'x' and ARGV[7] ~= '0' then
    local text = redis.call('GET', KEYS[4])
    local look = text and glance(text, ARGV[3], clock())
    if look and redis.call('EXISTS', KEYS[3]) == 0 then
        return {6, math.ceil(look / 1000), '', {1}}
    end
end
