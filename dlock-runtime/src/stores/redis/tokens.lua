-- Prelude of the scripts that draw tokens. KEYS[1] is a counter of all tokens that this server has drawn (in a
-- Cluster, those for the locks of one slot); ARGV[1] the largest token that the client knows; ARGV[2] '1' for the first
-- draw over a connection, '2' for the first one in a while, else '0'.
local largest, reason = tonumber(ARGV[1]), ARGV[2]

-- Draws tokens: each of the `number` values after the returned one.
local function draw(number)
    local last = redis.call('INCRBY', KEYS[1], number) - number
    if reason == '0' and last >= largest then
        return last
    end
    -- This server may have been restarted or emptied, or may be a replica that was promoted, and may have forgotten
    -- the last tokens. All tokens were below the time, unless the clock was set back: then as many as a server draws
    -- in a second are skipped over each new connection.
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    if last >= now and reason == '1' then
        last = last + 1048576
    end
    reason = '0'
    last = math.max(last, largest, now)
    redis.call('SET', KEYS[1], string.format('%.0f', last + number))
    return last
end

-- Draws a token that is larger than `other`, which an earlier version of dlock has drawn.
local function draw_above(other)
    local token = draw(1) + 1
    if token <= other then
        token = other + 1
        redis.call('SET', KEYS[1], string.format('%.0f', token))
    end
    return token
end

-- Raises the counter before a token is answered that was drawn earlier, perhaps over another connection.
local function answer_again(token)
    if reason ~= '0' then
        draw(0)
    end
    return token
end
