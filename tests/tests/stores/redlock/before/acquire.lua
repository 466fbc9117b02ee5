-- Acquires locks on a Redlock node, each on its own, if they are free, or again if their owner holds them (the reply
-- was lost).
-- KEYS: mark; for each request: lock, last token, tombstone of its owner.
-- ARGV: the run of the server that was asked; for each request: owner, ttl in ms, round, proposed token, how far the
-- proposal may be from this server's clock in us, client info.
-- Answers for each request {1, token, ''} granted, {0, ms left, owner} busy, {2, 0, ''} abandoned earlier,
-- {3, ms left, ''} in quarantine, {4, 0, ''} restarted or emptied, or the text of an error.
local now = clock()

local function acquire(key, arg)
    local lock, last_token, gone = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    local owner, ttl, round, proposed = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], tonumber(ARGV[arg + 3])
    local held = redis.pcall('GET', lock)
    if type(held) == 'table' then
        return held.err
    end
    if held then
        local holder, token, held_round = string.match(held, '^([^:]*):(%d+):(%d+):')
        if holder ~= owner then
            -- A value without an owner is in another form, and belongs to somebody else.
            return {0, redis.call('PTTL', lock), holder or '-'}
        end
        -- A late release of an earlier round must not end this one.
        round = string.format('%.0f', math.max(tonumber(held_round), tonumber(round)))
        redis.call('SET', lock, table.concat({owner, token, round, ARGV[arg + 5]}, ':'), 'PX', ttl)
        return {1, tonumber(token), ''}
    end
    if tonumber(redis.call('GET', gone) or '-1') >= tonumber(round) then
        return {2, 0, ''}
    end
    -- A hybrid clock: the time in microseconds, or one more than the last token if that is larger. The
    -- proposal of a client whose clock is far off is ignored.
    if math.abs(proposed - now) > tonumber(ARGV[arg + 4]) then
        proposed = now
    end
    local token = math.max(tonumber(redis.call('GET', last_token) or '0') + 1, proposed)
    remember_token(last_token, token, now)
    redis.call('SET', lock, string.format('%s:%.0f:%s:%s', owner, token, round, ARGV[arg + 5]), 'PX', ttl)
    return {1, token, ''}
end

local answers = {}
local verdict = may_count(KEYS[1], ARGV[1], now)
for at = 1, (#KEYS - 1) / 3 do
    answers[at] = verdict == true and acquire(at * 3 - 1, at * 6 - 4) or verdict
end
return answers
