-- The script of the version before, with its preludes.
-- Prelude of the scripts for a Redlock node, one of several independent servers.  The mark is
-- `run:from:length`: the run of the server that may count, from when on (in ms), and the longest
-- requested quarantine.  A server that was restarted has another run than its mark, and one that was
-- emptied has no mark: what it has forgotten is unknown.
-- Returns true if the node may count, else the answer that says why not.
local function may_count(mark, expected)
    local run, from = string.match(redis.call('GET', mark) or '', '^(%w+):(%d+):')
    if run ~= expected then
        return {4, 0, ''}
    end
    local time = redis.call('TIME')
    local left = tonumber(from) - (time[1] * 1000 + math.floor(time[2] / 1000))
    if left > 0 then
        return {3, left, ''}
    end
    return true
end
-- Prelude of the scripts that store tokens or read the clock.
-- The last token is kept until an hour after the time that it names, so that a clock that was once ahead
-- cannot make a later token smaller. After that, the clock alone guarantees growth, and nothing is left behind.
local function remember_token(key, token, now)
    local keep = math.ceil(math.max(token - now, 0) / 1000) + 3600000
    -- '%.0f': concatenation would turn a number of this size into 1.79e+15.
    redis.call('SET', key, string.format('%.0f', token), 'PX', string.format('%.0f', keep))
end
-- The server's clock in microseconds.
local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end
-- Acquires the lock if it is free, or again if this owner holds it (the reply was lost).
-- KEYS: lock, last token, tombstone of this owner; for a Redlock node its mark, for others the group.
-- ARGV: owner, ttl in ms, round, proposed token (0: none), how far the proposal may be from this
-- server's clock in us, client info; for a Redlock node also the run of the server that was asked.
-- Answers {1, token, ''} granted, {0, ms left, owner} busy, {2, 0, ''} abandoned earlier, {3, ms left, ''}
-- in quarantine, {4, 0, ''} restarted or emptied, {5, 0, ''} there is a group, so `enter.lua` decides.
if ARGV[7] then
    local verdict = may_count(KEYS[4], ARGV[7])
    if verdict ~= true then
        return verdict
    end
elseif redis.call('GET', KEYS[4]) then
    return {5, 0, ''}
end
local held = redis.call('GET', KEYS[1])
if held then
    local owner, token, round = string.match(held, '^([^:]*):(%d+):(%d+):')
    if owner ~= ARGV[1] then
        -- A value without an owner is in another form, and belongs to somebody else.
        return {0, redis.call('PTTL', KEYS[1]), owner or '-'}
    end
    -- A late release of an earlier round must not end this one.
    round = string.format('%.0f', math.max(tonumber(round), tonumber(ARGV[3])))
    redis.call('SET', KEYS[1], table.concat({owner, token, round, ARGV[6]}, ':'), 'PX', ARGV[2])
    return {1, tonumber(token), ''}
end
if tonumber(redis.call('GET', KEYS[3]) or '-1') >= tonumber(ARGV[3]) then
    return {2, 0, ''}
end
-- A hybrid clock: the time in microseconds, or one more than the last token if that is larger. The
-- proposal of a client whose clock is far off is ignored.
local now = clock()
local proposed = tonumber(ARGV[4])
if math.abs(proposed - now) > tonumber(ARGV[5]) then
    proposed = now
end
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, proposed)
remember_token(KEYS[2], token, now)
redis.call('SET', KEYS[1], string.format('%s:%.0f:%s:%s', ARGV[1], token, ARGV[3], ARGV[6]), 'PX', ARGV[2])
return {1, token, ''}
