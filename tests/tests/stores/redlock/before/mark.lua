-- Prelude of the scripts for a Redlock node, one of several independent servers.  The mark is
-- `run:from:length`: the run of the server that may count, from when on (in ms), and the longest
-- requested quarantine.  A server that was restarted has another run than its mark, and one that was
-- emptied has no mark: what it has forgotten is unknown.
-- Returns true if the node may count, else the answer that says why not.
local function may_count(mark, expected, now)
    local run, from = string.match(redis.call('GET', mark) or '', '^(%w+):(%d+):')
    if run ~= expected then
        return {4, 0, ''}
    end
    local left = tonumber(from) - math.floor(now / 1000)
    if left > 0 then
        return {3, left, ''}
    end
    return true
end
