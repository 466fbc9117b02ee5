-- Acquires locks on a Redlock node, each on its own, if they are free, or again if their owner holds them (the reply
-- was lost).
-- KEYS: mark; for each request: lock, tombstone of its owner, last token.
-- ARGV: the run of the server that was asked, how far a proposal may be from this server's clock in us; for each
-- request: what is stored if the proposed token is granted (`owner:token:round:client info`), that token, ttl in ms.
-- Answers for each request its token if granted, {0, ms left, owner} busy, {2, 0, ''} abandoned earlier,
-- {3, ms left, ''} in quarantine, {4, 0, ''} restarted or emptied, or the text of an error.
local call, pcall, answers = redis.call, redis.pcall, {}
local now, tolerance, requests = clock(), tonumber(ARGV[2]), (#KEYS - 1) / 3

-- The locks that this call has granted. What was read before no longer holds for them.
local granted = {}

-- Grants nothing if the lock has a value of another kind.
local function grant(key, arg, last)
    local record, digits = ARGV[arg], ARGV[arg + 1]
    local token = tonumber(digits)
    local is_near = math.abs(token - now) <= tolerance
    if token <= last or not is_near then
        -- A hybrid clock: the time in microseconds, or one more than the last token if that is larger. The proposal
        -- of a client whose clock is far off is ignored.
        token = math.max(last + 1, is_near and token or now)
        digits = digits_of(token)
        record = string.gsub(record, ':%d+', ':' .. digits, 1)
    end
    granted[KEYS[key]] = true
    remember_token(KEYS[key + 2], token, digits, now)
    return call('SET', KEYS[key], record, 'PX', ARGV[arg + 2], 'NX') and token
end

-- For a lock about which something is stored.
local function look(key, arg)
    local lock = KEYS[key]
    local owner, round, client_info = string.match(ARGV[arg], '^([^:]*):%d+:(%d+):(.*)$')
    local held = pcall('GET', lock)
    if type(held) == 'table' then
        return held.err
    end
    if held then
        local holder, token, held_round = string.match(held, '^([^:]*):(%d+):(%d+):')
        if holder ~= owner then
            -- A value without an owner is in another form, and belongs to somebody else.
            return {0, call('PTTL', lock), holder or '-'}
        end
        -- A late release of an earlier round must not end this one.
        round = digits_of(math.max(tonumber(held_round), tonumber(round)))
        call('SET', lock, table.concat({owner, token, round, client_info}, ':'), 'PX', ARGV[arg + 2])
        return tonumber(token)
    end
    local gone = pcall('GET', KEYS[key + 1])
    if type(gone) == 'table' then
        return gone.err
    elseif gone and (tonumber(gone) or -1) >= tonumber(round) then
        return {2, 0, ''}
    end
    local last, failed = read_token(KEYS[key + 2])
    return last and grant(key, arg, last) or failed
end

local verdict = may_count(KEYS[1], ARGV[1], now)
if verdict ~= true then
    for at = 1, requests do
        answers[at] = verdict
    end
    return answers
end

-- What cannot be read this way is looked at on its own: everything, if the user may not call `MGET` and `EXISTS`, and
-- values of another kind, which `MGET` shows as if there were none.
local values, unknown = pcall('MGET', unpack(KEYS, 2)), {}
for at = 1, requests do
    if not values[at * 3] then
        unknown[#unknown + 1] = KEYS[at * 3 + 1]
    end
end
local are_new = not values.err and unknown[1] and pcall('EXISTS', unpack(unknown)) == 0

for at = 1, requests do
    local key, arg = at * 3 - 1, at * 3
    local held, gone, last = values[key - 1], values[key], values[key + 1] or are_new and '0'
    last = tonumber(last)
    local is_free = last and not held and not gone and not granted[KEYS[key]]
    answers[at] = is_free and grant(key, arg, last) or look(key, arg)
end
return answers
