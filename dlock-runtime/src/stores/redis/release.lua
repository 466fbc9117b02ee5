-- Releases leases, each on its own, if their owners hold them, revoked or not. If nobody waits for any of them, that is
-- all. Otherwise `released.lua` goes on.
-- KEYS: for each request: lock, group, line.  ARGV: the owners.
-- Answers for each request: 1 released, 0 not held, or the text of an error.
local find = string.find
local answers, locks, ended, lines, announced = {}, {}, {}, {}, false
for at = 1, #ARGV do
    locks[at] = KEYS[at * 3 - 2]
end
local stored = redis.call('MGET', unpack(locks))
for at = 1, #ARGV do
    local held = stored[at]
    -- `MGET` skips what is no string; `GET` says that it is none.
    held = held or redis.pcall('GET', locks[at])
    answers[at] = 0
    if type(held) == 'table' then
        answers[at] = held.err
    elseif held then
        local first = find(held, ARGV[at], 1, true)
        if first == 1 or first == 2 and string.byte(held) == 126 then
            ended[#ended + 1] = locks[at]
            lines[#lines + 1] = KEYS[at * 3]
            answers[at] = 1
            local mark = find(held, ':', first + 33, true) + 1
            announced = announced or string.byte(held, mark) ~= 49
            stored[at] = string.sub(held, mark, mark)
        end
    end
end
if #ended > 0 then
    redis.call('DEL', unpack(ended))
end
if #ended == 0 or not announced and redis.call('EXISTS', unpack(lines)) == 0 then
    return answers
end

