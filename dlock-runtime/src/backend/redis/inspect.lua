-- KEYS: lock.  Answers {owner, token, ms left}, or nothing when it is free.
local held = redis.call('GET', KEYS[1])
if not held then
    return false
end
local owner, token = string.match(held, '^([^:]*):(%d+):%d+$')
return {owner, tonumber(token), redis.call('PTTL', KEYS[1])}
