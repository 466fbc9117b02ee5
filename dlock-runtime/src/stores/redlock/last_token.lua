-- Prelude of the scripts of Redlock nodes that store tokens.

-- Concatenation would turn a number of this size into 1.79e+15.
local function digits_of(number)
    return string.format('%.0f', number)
end

-- The last token, 0 if there is none. If it is nil, the text after it says why.
local function read_token(key)
    local stored = redis.pcall('GET', key)
    if type(stored) == 'table' then
        return nil, stored.err
    end
    return tonumber(stored or '0'), 'ERR the last token is not a number'
end

-- The last token is kept until an hour after the time that it names, so that a clock that was once ahead
-- cannot make a later token smaller. After that, the clock alone guarantees growth, and nothing is left behind.
local function remember_token(key, token, digits, now)
    local keep = '3600000'
    if token > now then
        keep = digits_of(math.ceil((token - now) / 1000) + 3600000)
    end
    redis.call('SET', key, digits, 'PX', keep)
end
