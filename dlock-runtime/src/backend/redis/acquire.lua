-- Takes the lock if it is free, or again if this owner has it (its reply was lost).
-- KEYS: lock, last token, tombstone of this owner.  ARGV: owner, ttl in ms.
-- Answers {1, token} granted, {0, ms left} busy, {2, 0} given up before.
local held = redis.call('GET', KEYS[1])
if held then
    local owner, token = string.match(held, '^([^:]*):(%d+)$')
    if owner == ARGV[1] then
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return {1, tonumber(token)}
    end
    return {0, redis.call('PTTL', KEYS[1])}
end
if redis.call('EXISTS', KEYS[3]) == 1 then
    return {2, 0}
end
-- A hybrid clock: the server's time in microseconds, or one more than the last token if that is ahead.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now)
-- '%.0f': concatenation would turn a number of this size into 1.79e+15.
local text = string.format('%.0f', token)
-- The last token outlives the moment it names by an hour, so that a clock that was once ahead cannot
-- make a later token smaller; then the clock alone guarantees growth, and nothing is left behind.
local keep = math.ceil((token - now) / 1000) + 3600000
redis.call('SET', KEYS[2], text, 'PX', string.format('%.0f', keep))
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. text, 'PX', ARGV[2])
return {1, token}
