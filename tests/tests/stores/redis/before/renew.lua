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
-- Renews the lease for a full ttl if this owner holds it. A Redlock node that has lost it acquires it again.
-- KEYS: lock; for a Redlock node also last token, tombstone of this owner, mark.
-- ARGV: owner, ttl in ms; for a Redlock node also round, token (0: unknown, so the lease is not acquired
-- again), the run of the server that was asked, client info.
-- Answers 1 renewed, 0 not held, 2 renewed on a node that must not count.
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^([^:]*):') == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif held or not KEYS[2] or ARGV[4] == '0' then
    return 0
elseif tonumber(redis.call('GET', KEYS[3]) or '-1') >= tonumber(ARGV[3]) then
    return 0
else
    local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[4]))
    remember_token(KEYS[2], token, clock())
    -- The acquire that this replaces may still be in flight on another connection. If it is executed after
    -- the release, it must not be granted.
    redis.call('SET', KEYS[3], string.format('%.0f', ARGV[3] - 1), 'PX', ARGV[2] + 60000)
    redis.call('SET', KEYS[1], table.concat({ARGV[1], ARGV[4], ARGV[3], ARGV[6]}, ':'), 'PX', ARGV[2])
end
if KEYS[4] and may_count(KEYS[4], ARGV[5]) ~= true then
    return 2
end
return 1
