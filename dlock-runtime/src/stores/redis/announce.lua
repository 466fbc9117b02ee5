-- Prelude: marks in the record of a held lock that its release is to be announced. A record of
-- another form is left alone. If the mark cannot be stored, the waiter polls.
local function announce_release(lock, held)
    local _, last = string.find(held, '^~?%x+:%d+:1:')
    local left = last and redis.call('PTTL', lock) or 0
    if left > 0 then
        local marked = string.sub(held, 1, last - 2) .. '2' .. string.sub(held, last)
        redis.pcall('SET', lock, marked, 'PX', left)
    end
end
