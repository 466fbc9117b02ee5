-- Renews leases for a full ttl, each on its own, if their owners hold them. A reservation, with the token 0,
-- is not a lease yet.
-- KEYS: the locks.  ARGV: for each its owner, and the ttl in ms.
-- Answers for each request: 1 renewed, 0 not held, or the text of an error.
local answers = {}
for at = 1, #KEYS do
    local held = redis.pcall('GET', KEYS[at])
    if type(held) == 'table' then
        answers[at] = held.err
    elseif held and string.find(held, ARGV[at * 2 - 1], 1, true) == 1
        and string.sub(held, 34, 35) ~= '0:' then
        answers[at] = redis.call('PEXPIRE', KEYS[at], ARGV[at * 2])
    else
        answers[at] = 0
    end
end
return answers
