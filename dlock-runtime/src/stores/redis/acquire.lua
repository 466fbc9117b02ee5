-- Continues `free.lua` where that has not decided: locks that are held, reserved, shared, waited for or abandoned, or
-- acquired again by their owner because the reply was lost, and tokens that may have been forgotten.

local function tokens_of(arg)
    return has_blocks and tonumber(ARGV[arg + 3]) or 1
end

-- Grants a lock that nobody else has.
local function grant_new(key, arg)
    local last = redis.pcall('GET', KEYS[key + 3])
    if type(last) == 'table' then
        return last.err
    end
    if last then
        -- An earlier version of dlock has drawn this token from its clock: a block above it would overtake the clock.
        return grant(KEYS[key], arg, draw_above(tonumber(last) or 0), true)
    end
    return grant(KEYS[key], arg, draw(tokens_of(arg)) + tokens_of(arg))
end

-- Grants a lock that is reserved for this owner. A mark that others wait is kept.
local function grant_reserved(key, arg, held)
    call('DEL', KEYS[key])
    local answer = grant_new(key, arg)
    if string.find(held, '^%x+:0:2:') then
        announce_release(KEYS[key], call('GET', KEYS[key]) or '')
    end
    return answer
end

-- The lock is busy. A caller that waits joins the line, or keeps its position there.
local function wait_in_line(key, arg, held)
    local left, wait = call('PTTL', KEYS[key]), tonumber(ARGV[arg + 4])
    if wait == 0 then
        pcall(leave_line, KEYS[key + 4], ARGV[arg])
        return {left}
    end
    local counted, channel = string.match(ARGV[4], '^(%d) (.*)$')
    local now = clock()
    local waiter = {ends = now + wait, ttl = ARGV[arg + 1], client_info = ARGV[arg + 2]}
    waiter.counted, waiter.channel = counted, channel
    local is_in_line, sign = pcall(join_line, KEYS[key + 4], ARGV[arg], waiter, now)
    if not is_in_line then
        -- The user may not use hashes.
        announce_release(KEYS[key], held)
        return {left}
    end
    sign = math.ceil(sign / 1000)
    return {left >= 0 and math.min(left, sign) or sign, 2}
end

-- For a lock about which something may be stored.
local function look(key, arg)
    local lock, owner, held = KEYS[key], ARGV[arg], redis.pcall('GET', KEYS[key])
    if type(held) == 'table' then
        return held.err
    elseif call('EXISTS', KEYS[key + 1]) == 1 then
        return 0
    elseif held and string.find(held, owner .. ':0:', 1, true) == 1 then
        return grant_reserved(key, arg, held)
    elseif call('EXISTS', KEYS[key + 2]) == 1 then
        return -1
    elseif held and string.find(held, owner, 1, true) == 1 then
        call('PEXPIRE', lock, ARGV[arg + 1])
        return answer_again(tonumber(string.match(held, '^%x+:(%d+):')))
    elseif held then
        return wait_in_line(key, arg, held)
    end
    pcall(leave_line, KEYS[key + 4], owner)
    return grant_new(key, arg)
end

-- The tokens for the requests from this one on.
local function tokens_from(first)
    local sum = 0
    for at = first, requests do
        sum = sum + tokens_of(at * 5)
    end
    return sum
end

local token
for at = 1, requests do
    local key, arg = at * 5 - 3, at * 5
    if not answers[at] and (are_free or requests > 1)
        and call('EXISTS', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3], KEYS[key + 4]) == 0 then
        token = (token or draw(tokens_from(at))) + tokens_of(arg)
        answers[at] = grant(KEYS[key], arg, token)
    end
    answers[at] = answers[at] or look(key, arg)
end
return answers
