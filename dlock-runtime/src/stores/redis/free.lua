-- Acquires locks, each on its own. This is the usual case: nothing is stored about any of them, and the counter of
-- tokens is at least where this connection has seen it. `acquire.lua` handles everything else; the functions that it
-- needs take longer to define than this case to execute.
-- A request asks for a block of consecutive tokens, usually for one token. The last one is stored, and answered.
-- A held lock is `owner:token:1:client info`, or with a 2 in place of the 1 when its release is to be announced. With the
-- token 0 it is reserved for an owner that waits, see `hand_over.lua`.
-- KEYS: the counter of tokens; for each request: lock, tombstone of its owner, group, last token (which only earlier
-- versions of dlock have stored), line.
-- ARGV: the largest token that the client knows; why the counter is to be raised ('0': it is not), see `tokens.lua`;
-- how many tokens all requests ask for; `counted channel` of this process, see `line.lua`; for each request: owner, ttl
-- in ms, client info, number of tokens, remaining wait of the caller in us.
-- Answers for each request: its last token if granted, {token, 1} if granted without the block that it asked for,
-- {ms left} if busy (-1: no end), {ms until the next poll, 2} if busy with a position in the line, 0 if it was abandoned earlier, -1 if there is a group, so that `enter.lua` decides, or
-- the text of an error.
local call, answers = redis.call, {}
local requests, tokens = (#KEYS - 1) / 5, tonumber(ARGV[3])
local has_blocks = false

-- Blocks are granted only while the tokens stay behind the server's time: if the server forgets the counter, the time
-- takes its place.
local function stays_behind(last)
    local time = redis.call('TIME')
    return last <= time[1] * 1000000 + time[2]
end

-- Stores a grant, unless an earlier request of this call has the lock. Answers its token, which is the last one of a
-- block, or alone.
local function grant(lock, arg, token, is_alone)
    -- In two parts, because a number of this size is exact in no other way that is as fast.
    local high = math.floor(token / 100000000)
    local record = string.format('%s:%d%08d:1:%s', ARGV[arg], high, token - high * 100000000, ARGV[arg + 2])
    if not call('SET', lock, record, 'PX', ARGV[arg + 1], 'NX') then
        return false
    elseif ARGV[arg + 3] == '1' or has_blocks and not is_alone then
        return token
    end
    return {token, 1}
end

local are_free = call('EXISTS', unpack(KEYS, 2)) == 0
if are_free and ARGV[2] == '0' then
    -- Drawn before the first grant, so that an error at a later one repeats no token.
    local last, granted = call('INCRBY', KEYS[1], tokens), 0
    if tokens > requests then
        has_blocks = last - tokens >= tonumber(ARGV[1]) and stays_behind(last)
        if not has_blocks then
            last = call('INCRBY', KEYS[1], requests - tokens)
            tokens = requests
        end
    end
    local token = last - tokens
    if token >= tonumber(ARGV[1]) then
        for at = 1, requests do
            token = token + (has_blocks and ARGV[at * 5 + 3] or 1)
            answers[at] = grant(KEYS[at * 5 - 3], at * 5, token)
            granted = granted + (answers[at] and 1 or 0)
        end
        if granted == requests then
            return answers
        end
    end
elseif tokens > requests and ARGV[2] == '0' then
    local last = tonumber(call('GET', KEYS[1])) or 0
    has_blocks = last >= tonumber(ARGV[1]) and stays_behind(last + tokens)
end
