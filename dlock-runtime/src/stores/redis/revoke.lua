-- Revokes the holds of a lock: they end without another renewal.
-- KEYS: lock, group.  Answers 1 if there was one.
local now = clock()
local group = read_group(KEYS[2], KEYS[1], now)
expire(group, now)
local held = 0
for _, one in ipairs(group.granted) do
    if one.owner ~= '-' and not one.reserved then
        held = 1
        if one.lock and not one.revoked then
            local left = string.format('%.0f', math.max(redis.call('PTTL', KEYS[1]), 1))
            redis.call('SET', KEYS[1], '~' .. redis.call('GET', KEYS[1]), 'PX', left)
        end
        one.revoked = true
    end
end
write_group(KEYS[2], group, now)
return held
