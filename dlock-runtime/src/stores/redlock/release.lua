-- Releases leases on a Redlock node, each on its own, if their owners hold them, revoked or not. With a rest, the lock
-- stays busy that long, without an owner: the rest of its `min_hold`.
-- KEYS: mark; the locks.
-- ARGV: the run of the server that was asked, -; for each request: owner, round, `rest in ms:tombstone in ms:how`, where
-- `how` is 'missing' (leave the tombstone only if the owner is not found), 'always', or 'quiet' (always, and notify
-- nobody). A rest or a tombstone of 0 means none.
-- Answers for each request 1 released, 0 not held, 2 not held on a node that must not count, or the text of an error.
local call, pcall, match = redis.call, redis.pcall, string.match
local answers, released, is_released = {}, {}, {}
local terms, rest, lasts, how
local verdict

local function not_held()
    verdict = verdict or may_count(KEYS[1], ARGV[1], clock())
    return verdict == true and 0 or 2
end

-- An abandoned acquire of this owner may be executed after this, and must not be granted. Answers an error if there is
-- one.
local function leave_tombstone(gone, round)
    local left = pcall('GET', gone)
    if type(left) == 'table' then
        return left.err
    elseif (tonumber(left) or -1) <= tonumber(round) then
        return pcall('SET', gone, round, 'PX', lasts).err
    end
end

local function release(lock, held, owner, last_round)
    local first = held and string.find(held, owner, 1, true)
    local found, start
    if first == 1 or first == 2 and string.byte(held) == 126 then
        start = first + #owner
        local round = match(held, '^:%d+:(%d+):', start)
        found = round and tonumber(round) <= tonumber(last_round)
    end
    if lasts ~= '0' and not (found and how == 'missing') then
        local failed = leave_tombstone(lock .. ':gone:' .. owner, last_round)
        if failed then
            return failed
        end
    end
    if not found then
        return not_held()
    end
    is_released[lock] = true
    if rest ~= '0' then
        local token, client_info = match(held, '^:(%d+):%d+:(.*)$', start)
        local stored = pcall('SET', lock, '-:' .. token .. ':0:' .. client_info, 'PX', rest)
        return stored.err or 1
    end
    released[#released + 1] = lock
    if how ~= 'quiet' then
        -- If the user may not publish, the lease has ended all the same.
        pcall('PUBLISH', lock .. ':free', '')
    end
    return 1
end

-- If the user may not call `MGET`, each lock is read on its own.
local values = pcall('MGET', unpack(KEYS, 2))
for at = 1, #KEYS - 1 do
    local lock, held, arg = KEYS[at + 1], values[at], at * 3
    if is_released[lock] then
        held = false
    elseif not held then
        -- `MGET` shows a value of another kind as if there were none.
        held = pcall('GET', lock)
    end
    if ARGV[arg + 2] ~= terms then
        terms = ARGV[arg + 2]
        rest, lasts, how = match(terms, '^(%d+):(%d+):(%a+)$')
    end
    answers[at] = type(held) == 'table' and held.err or release(lock, held, ARGV[arg], ARGV[arg + 1])
end
if released[1] then
    call('DEL', unpack(released))
end
return answers
