-- Sets a value unless a larger token has set it before.
-- KEYS: value, its token.  ARGV: token, value.  Answers the largest token that has set it.
local newest = redis.call('GET', KEYS[2])
-- As texts: a number of Lua holds 53 bits, a token 63. The longer of two plain numbers is the larger.
if newest and (#newest > #ARGV[1] or (#newest == #ARGV[1] and newest > ARGV[1])) then
    return newest
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1])
return ARGV[1]
