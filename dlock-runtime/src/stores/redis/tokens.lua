-- Prelude of the scripts that draw tokens. KEYS[1] is a counter of all tokens that this server has drawn (in a
-- Cluster, those for the locks of one slot); ARGV[1] the largest token that the client knows, ARGV[2] '1' for the first
-- draw over a connection.
-- Draws tokens: each of the `number` values after the returned one.
local function draw(number)
    local last = redis.call('INCRBY', KEYS[1], number) - number
    if ARGV[2] ~= '1' and last >= tonumber(ARGV[1]) then
        return last
    end
    -- This server may have been restarted or emptied, or may be a replica that was promoted, and may have forgotten
    -- the last tokens. All tokens were below the time, unless the clock was set back: then as many as a server draws
    -- in a second are skipped.
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    if last >= now and ARGV[2] == '1' then
        last = last + 1048576
    end
    last = math.max(last, tonumber(ARGV[1]), now)
    redis.call('SET', KEYS[1], string.format('%.0f', last + number))
    return last
end

-- Draws a token that is larger than `other`, which another version of dlock has drawn.
local function draw_above(other)
    local token = draw(1) + 1
    if token <= other then
        token = other + 1
        redis.call('SET', KEYS[1], string.format('%.0f', token))
    end
    return token
end
