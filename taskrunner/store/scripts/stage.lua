-- Puts a part of a large workflow aside, until all of it is here: nothing of it starts before begin.lua.
--
-- KEYS  1 staged
-- ARGV  1 seconds that it may stand there  2 '1': the first part  then fields and values
-- Returns 1; or 0: what was here of it is gone, as it took too long.
-- Sent again after a lost reply it changes nothing.
local bad = mistyped({KEYS[1], 'hash'})
if bad then return bad end
if ARGV[2] ~= '1' and call('EXISTS', KEYS[1]) == 0 then return 0 end
call('HSET', KEYS[1], unpack(ARGV, 3))
call('PEXPIRE', KEYS[1], ARGV[1] * 1000)
return 1
