-- Ends the lease, whoever holds it.  KEYS: lock.  ARGV: channel.  Answers 1 if there was one.
local ended = redis.call('DEL', KEYS[1])
if ended == 1 then
    redis.call('PUBLISH', ARGV[1], '')
end
return ended
