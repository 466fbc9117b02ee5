-- Releases leases on a Redlock node, each on its own, if their owners hold them, revoked or not. With a rest, the lock
-- stays busy that long, without an owner: the rest of its `min_hold`.
-- KEYS: mark; for each request: lock, tombstone of its owner.
-- ARGV: the run of the server that was asked; for each request: owner, round, rest in ms (0: at once), channel ('':
-- notify nobody), tombstone in ms, when to leave it ('always', or 'missing': if the owner is not found).
-- Answers for each request 1 released, 0 not held, 2 not held on a node that must not count, or the text of an error.
local verdict = may_count(KEYS[1], ARGV[1], clock())

local function release(key, arg)
    local lock, gone = KEYS[key], KEYS[key + 1]
    local wanted, last_round, rest = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
    local channel, lasts, when = ARGV[arg + 3], ARGV[arg + 4], ARGV[arg + 5]
    local held = redis.pcall('GET', lock)
    if type(held) == 'table' then
        return held.err
    end
    local owner, token, round, client_info
    if held then
        owner, token, round, client_info = string.match(held, '^~?([^:]*):(%d+):(%d+):(.*)$')
    end
    local found = owner == wanted and tonumber(round) <= tonumber(last_round)
    if tonumber(lasts) > 0 and (when == 'always' or not found) then
        -- An abandoned acquire of this owner may be executed after this, and must not be granted.
        if tonumber(redis.call('GET', gone) or '-1') <= tonumber(last_round) then
            redis.call('SET', gone, last_round, 'PX', lasts)
        end
    end
    if not found then
        return verdict == true and 0 or 2
    end
    if rest ~= '0' then
        redis.call('SET', lock, '-:' .. token .. ':0:' .. client_info, 'PX', rest)
    else
        redis.call('DEL', lock)
        if channel ~= '' then
            -- If the user may not publish, the lease has ended all the same.
            redis.pcall('PUBLISH', channel, '')
        end
    end
    return 1
end

local answers = {}
for at = 1, (#KEYS - 1) / 2 do
    answers[at] = release(at * 2, at * 6 - 4)
end
return answers
