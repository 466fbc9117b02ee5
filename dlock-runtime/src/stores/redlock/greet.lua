-- Reports which run of the server this is, and gives it a mark that says from when on it may count.
-- KEYS: mark.  ARGV: quarantine in ms, 'look' (change nothing), 'enter', or 'found' (nothing was ever
-- stored here or on any other node, so nothing can have been forgotten).
-- Answers {run, ms until it counts (-1: it has no mark), longest requested quarantine in ms, clock in ms}.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local asked = tonumber(ARGV[1])
local mark = redis.call('GET', KEYS[1])
local old, from, length = string.match(mark or '', '^(%w+):(%d+):(%d+)$')
if ARGV[2] == 'look' then
    if not old then
        return {run, -1, asked, now}
    end
    length = math.max(tonumber(length), asked)
    return {run, old == run and math.max(tonumber(from) - now, 0) or length, length, now}
end
if old == run then
    from, length = tonumber(from), tonumber(length)
    if from > now and asked > length then
        from = from + asked - length
    end
    length = math.max(length, asked)
else
    -- Restarted or emptied: it may have forgotten anything that was granted until now.
    length = math.max(tonumber(length or '0'), asked)
    from = (ARGV[2] == 'found' and not mark) and now or now + length
end
local text = string.format('%s:%.0f:%.0f', run, from, length)
if text ~= mark then
    redis.call('SET', KEYS[1], text)
end
return {run, math.max(from - now, 0), length, now}
