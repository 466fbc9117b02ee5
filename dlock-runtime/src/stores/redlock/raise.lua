-- Stores tokens that another Redlock node has drawn, each if its owner holds the lease here as acquired by this
-- round.
-- KEYS: mark; for each request: lock, last token.
-- ARGV: the run of the server that was asked, -; for each request: owner, round, token.
-- Answers for each request 1 stored, 0 not held or the node must not count, or the text of an error.
local now = clock()
local verdict = may_count(KEYS[1], ARGV[1], now)

local function raise(key, arg)
    local lock, last_token = KEYS[key], KEYS[key + 1]
    local held = redis.pcall('GET', lock)
    if type(held) == 'table' then
        return held.err
    end
    local owner, token, round, client_info
    if held then
        owner, token, round, client_info = string.match(held, '^([^:]*):(%d+):(%d+):(.*)$')
    end
    if owner ~= ARGV[arg] or round ~= ARGV[arg + 1] or verdict ~= true then
        return 0
    end
    local last, failed = read_token(last_token)
    if not last then
        return failed
    end
    local left = redis.call('PTTL', lock)
    token = math.max(tonumber(token), tonumber(ARGV[arg + 2]))
    last = math.max(last, token)
    remember_token(last_token, last, digits_of(last), now)
    redis.call('SET', lock, table.concat({owner, digits_of(token), round, client_info}, ':'), 'PX', left)
    return 1
end

local answers = {}
for at = 1, (#KEYS - 1) / 2 do
    answers[at] = raise(at * 2, at * 3)
end
return answers
