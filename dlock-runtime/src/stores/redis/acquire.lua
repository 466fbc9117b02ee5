-- Continues `free.lua` where that has not decided: locks that are held, shared, waited for or abandoned, or acquired
-- again by their owner because the reply was lost, and tokens that may have been forgotten.

local function tokens_of(arg)
    return has_blocks and tonumber(ARGV[arg + 3]) or 1
end

-- For a lock about which something may be stored.
local function look(key, arg)
    local lock, owner, held = KEYS[key], ARGV[arg], redis.pcall('GET', KEYS[key])
    if type(held) == 'table' then
        return held.err
    elseif call('EXISTS', KEYS[key + 2]) == 1 then
        return -1
    elseif held and string.find(held, owner, 1, true) == 1 then
        call('PEXPIRE', lock, ARGV[arg + 1])
        return answer_again(tonumber(string.match(held, '^%x+:(%d+):')))
    elseif held then
        announce_release(lock, held)
        return {call('PTTL', lock)}
    elseif call('EXISTS', KEYS[key + 1]) == 1 then
        return 0
    end
    local last = redis.pcall('GET', KEYS[key + 3])
    if type(last) == 'table' then
        return last.err
    end
    if last then
        -- An earlier version of dlock has drawn this token from its clock: a block above it would overtake the clock.
        return grant(lock, arg, draw_above(tonumber(last) or 0), true)
    end
    return grant(lock, arg, draw(tokens_of(arg)) + tokens_of(arg))
end

-- The tokens for the requests from this one on.
local function tokens_from(first)
    local sum = 0
    for at = first, requests do
        sum = sum + tokens_of(at * 4)
    end
    return sum
end

local token
for at = 1, requests do
    local key, arg = at * 4 - 2, at * 4
    if not answers[at] and (are_free or requests > 1)
        and call('EXISTS', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]) == 0 then
        token = (token or draw(tokens_from(at))) + tokens_of(arg)
        answers[at] = grant(KEYS[key], arg, token)
    end
    answers[at] = answers[at] or look(key, arg)
end
return answers
