-- Prelude: marks in the record of a held lock that somebody waits, so that its release is announced. A record of
-- another form is left alone.
local function announce_release(lock, held)
    local _, last = string.find(held, '^~?%x+:%d+:1:')
    if last then
        local marked = string.sub(held, 1, last - 2) .. '2' .. string.sub(held, last)
        redis.call('SET', lock, marked, 'PX', math.max(redis.call('PTTL', lock), 1))
    end
end
