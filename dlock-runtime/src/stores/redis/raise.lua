-- Stores a token that another Redlock node has drawn, if this owner holds the lease here as acquired by
-- this round.
-- KEYS: lock, last token, mark.  ARGV: owner, round, token, the run of the server that was asked.
-- Answers 1 stored, 0 not held or the node must not count.
local held = redis.call('GET', KEYS[1])
local owner, token, round, claimant
if held then
    owner, token, round, claimant = string.match(held, '^([^:]*):(%d+):(%d+):(.*)$')
end
if owner ~= ARGV[1] or round ~= ARGV[2] or may_count(KEYS[3], ARGV[4]) ~= true then
    return 0
end
local left = redis.call('PTTL', KEYS[1])
token = math.max(tonumber(token), tonumber(ARGV[3]))
local last = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), token)
remember_token(KEYS[2], last, clock())
redis.call('SET', KEYS[1], string.format('%s:%.0f:%s:%s', owner, token, round, claimant), 'PX', left)
return 1
