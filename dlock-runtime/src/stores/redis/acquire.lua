-- Acquires locks that are free, each on its own, or again if their owner holds them (the reply was lost).
-- A held lock is `owner:token:1:client info`, or with a 2 in place of the 1 when somebody waits for its release.
-- KEYS: the counter of tokens; for each request: lock, tombstone of its owner, group, last token (which only earlier
-- versions of dlock have stored).
-- ARGV: what `draw` takes; for each request: owner, ttl in ms, client info.
-- Answers for each request: its token if granted, {ms left} if busy (-1: no end), 0 if it was abandoned earlier,
-- -1 if there is a group, so that `enter.lua` decides, or the text of an error.
local call, answers, token = redis.call, {}, nil
local requests = (#KEYS - 1) / 4

local function grant(lock, arg, token)
    -- In two parts, because a number of this size is exact in no other way that is as fast.
    local high = math.floor(token / 100000000)
    local record = string.format('%s:%d%08d:1:%s', ARGV[arg], high, token - high * 100000000, ARGV[arg + 2])
    call('SET', lock, record, 'PX', ARGV[arg + 1])
    return token
end

-- For a lock about which something is stored.
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
    return grant(lock, arg, draw_above(tonumber(last) or 0))
end

for at = 1, requests do
    local key, arg = at * 4 - 2, at * 3
    if call('EXISTS', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]) == 0 then
        -- Drawn before the first grant, so that an error at a later one repeats no token.
        token = (token or draw(requests - at + 1)) + 1
        answers[at] = grant(KEYS[key], arg, token)
    else
        answers[at] = look(key, arg)
    end
end
return answers
