-- Has this owner's hold end without a renewal, on a node of several. Where the node has lost it, it is not taken
-- again.
-- KEYS: lock, tombstone of this owner.  ARGV: owner, tombstone in ms, its round.
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^([^:]*):') == ARGV[1] then
    local left = math.max(redis.call('PTTL', KEYS[1]), 1)
    redis.call('SET', KEYS[1], '~' .. held, 'PX', left)
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
return 1
