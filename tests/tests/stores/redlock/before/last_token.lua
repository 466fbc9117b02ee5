-- Prelude of the scripts of Redlock nodes that store tokens.
-- The last token is kept until an hour after the time that it names, so that a clock that was once ahead
-- cannot make a later token smaller. After that, the clock alone guarantees growth, and nothing is left behind.
local function remember_token(key, token, now)
    local keep = math.ceil(math.max(token - now, 0) / 1000) + 3600000
    -- '%.0f': concatenation would turn a number of this size into 1.79e+15.
    redis.call('SET', key, string.format('%.0f', token), 'PX', string.format('%.0f', keep))
end
