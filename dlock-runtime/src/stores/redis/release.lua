-- Releases leases, each on its own, if their owners hold them, revoked or not. A release that somebody waits for is
-- announced.
-- KEYS: the locks.  ARGV: their owners.
-- Answers for each request: 1 released, 0 not held, or the text of an error.
local pcall, find = redis.pcall, string.find
local answers, ended, announced = {}, {}, {}
local stored = redis.call('MGET', unpack(KEYS))
for at = 1, #KEYS do
    local held = stored[at]
    -- `MGET` skips what is no string; `GET` says that it is none.
    held = held or pcall('GET', KEYS[at])
    answers[at] = 0
    if type(held) == 'table' then
        answers[at] = held.err
    elseif held then
        local first = find(held, ARGV[at], 1, true)
        if first == 1 or first == 2 and string.byte(held) == 126 then
            ended[#ended + 1] = KEYS[at]
            answers[at] = 1
            local mark = find(held, ':', first + 33, true) + 1
            if string.byte(held, mark) ~= 49 then
                announced[#announced + 1] = KEYS[at]
            end
        end
    end
end
if #ended > 0 then
    redis.call('DEL', unpack(ended))
end
for _, lock in ipairs(announced) do
    -- If the user may not publish, the lease has ended all the same.
    pcall('PUBLISH', lock .. ':free', '')
end
return answers
