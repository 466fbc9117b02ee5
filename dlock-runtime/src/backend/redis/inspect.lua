-- KEYS: lock; for others than a node of several: group.
-- Answers {owner, token, ms left} of a holder, or nothing when it is free.
local now = clock()
local group = read_group(KEYS[2], KEYS[1], now)
expire(group, now)
local one = group.granted[1]
if not one then
    return false
end
return {one.owner, tonumber(one.token), math.ceil((one.ends - now) / 1000)}
