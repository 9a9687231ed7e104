-- Looks at the ticks: which are due, and when the next one is.
--
-- KEYS  1 ticks  2 janitor
-- ARGV  1 most of them
-- Returns server time in ms, 1 if there was ever a schedule here (0: also when the server was emptied), the next tick
-- that is not due (-1: none), then flat: member, tick.
-- Closes nothing: whoever fires a tick compares it again.
local bad = mistyped({KEYS[1], 'zset', KEYS[2], 'hash'})
if bad then return bad end
local at = now()
local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', at, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local following = call('ZRANGEBYSCORE', KEYS[1], '(' .. at, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {at, call('HEXISTS', KEYS[2], 'schedules'), tonumber(following[2] or -1), unpack(due)}
