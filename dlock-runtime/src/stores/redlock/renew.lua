-- Renews leases on a Redlock node for a full ttl, each on its own, if their owners hold them. A node that has lost one
-- acquires it again.
-- KEYS: mark; for each request: lock, last token, tombstone of its owner.
-- ARGV: the run of the server that was asked, -; for each request: owner, ttl in ms, round, token (0: unknown, so the
-- lease is not acquired again), client info.
-- Answers for each request 1 renewed, 0 not held, 2 renewed on a node that must not count, or the text of an error.
local now = clock()
local verdict = may_count(KEYS[1], ARGV[1], now)

local function renew(key, arg)
    local lock, last_token, gone = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    local owner, ttl, round, known = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local held = redis.pcall('GET', lock)
    if type(held) == 'table' then
        return held.err
    end
    if held and string.match(held, '^([^:]*):') == owner then
        redis.call('PEXPIRE', lock, ttl)
    elseif held or known == '0' then
        return 0
    else
        local left = redis.pcall('GET', gone)
        if type(left) == 'table' then
            return left.err
        elseif (tonumber(left) or -1) >= tonumber(round) then
            return 0
        end
        local last, failed = read_token(last_token)
        if not last then
            return failed
        end
        local token = math.max(last, tonumber(known))
        remember_token(last_token, token, digits_of(token), now)
        -- The acquire that this replaces may still be in flight on another connection. If it is executed after
        -- the release, it must not be granted.
        redis.call('SET', gone, digits_of(round - 1), 'PX', ttl + 60000)
        redis.call('SET', lock, table.concat({owner, known, round, ARGV[arg + 4]}, ':'), 'PX', ttl)
    end
    return verdict == true and 1 or 2
end

local answers = {}
for at = 1, (#KEYS - 1) / 3 do
    answers[at] = renew(at * 3 - 1, at * 5 - 2)
end
return answers
