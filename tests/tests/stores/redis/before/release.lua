-- The script of the version before, with its preludes.
-- Prelude of the scripts for a Redlock node, one of several independent servers.  The mark is
-- `run:from:length`: the run of the server that may count, from when on (in ms), and the longest
-- requested quarantine.  A server that was restarted has another run than its mark, and one that was
-- emptied has no mark: what it has forgotten is unknown.
-- Returns true if the node may count, else the answer that says why not.
local function may_count(mark, expected)
    local run, from = string.match(redis.call('GET', mark) or '', '^(%w+):(%d+):')
    if run ~= expected then
        return {4, 0, ''}
    end
    local time = redis.call('TIME')
    local left = tonumber(from) - (time[1] * 1000 + math.floor(time[2] / 1000))
    if left > 0 then
        return {3, left, ''}
    end
    return true
end
-- Releases the lease if this owner holds it, revoked or not. With a rest, the lock stays busy that long, without an
-- owner: the rest of its `min_hold`.
-- KEYS: lock, tombstone of this owner; for a Redlock node also its mark.
-- ARGV: owner, round, rest in ms (0: at once), channel ('': notify nobody), tombstone in ms, when to leave
-- it ('always', or 'missing': if the owner is not found); for a Redlock node also the run of the server
-- that was asked.
-- Answers 1 released, 0 not held, 2 not held on a node that must not count.
local held = redis.call('GET', KEYS[1])
local owner, token, round, claimant
if held then
    owner, token, round, claimant = string.match(held, '^~?([^:]*):(%d+):(%d+):(.*)$')
end
local found = owner == ARGV[1] and tonumber(round) <= tonumber(ARGV[2])
if tonumber(ARGV[5]) > 0 and (ARGV[6] == 'always' or not found) then
    -- An abandoned acquire of this owner may be executed after this, and must not be granted.
    if tonumber(redis.call('GET', KEYS[2]) or '-1') <= tonumber(ARGV[2]) then
        redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[5])
    end
end
if not found then
    return (KEYS[3] and may_count(KEYS[3], ARGV[7]) ~= true) and 2 or 0
end
if ARGV[3] ~= '0' then
    redis.call('SET', KEYS[1], '-:' .. token .. ':0:' .. claimant, 'PX', ARGV[3])
else
    redis.call('DEL', KEYS[1])
    if ARGV[4] ~= '' then
        -- If the user may not publish, the lease has ended all the same.
        redis.pcall('PUBLISH', ARGV[4], '')
    end
end
return 1
