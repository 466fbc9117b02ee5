-- Continues `release.lua` where somebody waits for a lock that was released.
for at = 1, #ARGV do
    if answers[at] == 1 then
        if stored[at] ~= '1' then
            -- If the user may not publish, the lease has ended all the same.
            redis.pcall('PUBLISH', locks[at] .. ':free', '')
        end
        pass_on(locks[at], KEYS[at * 3 - 1], KEYS[at * 3], stored[at])
    end
end
return answers
