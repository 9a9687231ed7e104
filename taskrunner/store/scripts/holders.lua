-- Reads up to 200 holders of a limiter's slots, those that expire first.
--
-- KEYS  1 slots  2 owners
-- ARGV  1 expiry from which on, in ms  2 how many that expire at that instant were read already
-- Returns per holder: id, expiry in ms, and the text of its owner or nil.
-- Closes: an owner that is another one than when the expiry was read.
local bad = mistyped({KEYS[1], 'zset', KEYS[2], 'hash'})
if bad then return bad end
local from = math.max(now() + 1, tonumber(ARGV[1]))
local skipped = from == tonumber(ARGV[1]) and ARGV[2] or 0
local rows = call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', from), '+inf', 'WITHSCORES', 'LIMIT', skipped, 200)
local found = {}
for n = 1, #rows, 2 do
  found[#found + 1] = rows[n]
  found[#found + 1] = rows[n + 1]
  found[#found + 1] = call('HGET', KEYS[2], rows[n])
end
return found
