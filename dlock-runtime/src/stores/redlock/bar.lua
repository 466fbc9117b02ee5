-- Stops the renewal of this owner's hold on a Redlock node. If the node has lost the hold, no renewal acquires it
-- again.
-- KEYS: lock, tombstone of this owner.  ARGV: owner, tombstone in ms, its round.
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^([^:]*):') == ARGV[1] then
    local left = math.max(redis.call('PTTL', KEYS[1]), 1)
    redis.call('SET', KEYS[1], '~' .. held, 'PX', left)
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
return 1
