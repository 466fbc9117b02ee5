-- Sets a value unless it was already set with a larger token.
-- KEYS: value, its token.  ARGV: token, value.  Returns the largest token that has set it.
local newest = redis.call('GET', KEYS[2])
-- Compared as strings: a Lua number holds 53 bits, a token 63. Of two decimal numbers the longer one is larger.
if newest and (#newest > #ARGV[1] or (#newest == #ARGV[1] and newest > ARGV[1])) then
    return newest
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1])
return ARGV[1]
