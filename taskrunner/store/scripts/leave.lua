-- A worker signs off: it leaves the registry, and its consumer goes wherever nothing is pending for it.
--
-- KEYS  1 workers  2 worker facts  3 leader  then the streams
-- ARGV  1 group  2 consumer
-- Returns how many streams still have entries pending for it; those are reclaimed by others in time.
-- Closes: XGROUP DELCONSUMER throws away what is pending, so it comes only after a look in the same script.
call('ZREM', KEYS[1], ARGV[2])
call('HDEL', KEYS[2], ARGV[2])
if pcall_('GET', KEYS[3]) == ARGV[2] then call('DEL', KEYS[3]) end -- the next evaluation is somebody else's, at once
local left = 0
for s = 4, #KEYS do
  local parked = pcall_('XPENDING', KEYS[s], ARGV[1], '-', '+', 1, 'parked') -- by the reclaim script
  if not parked.err and #parked == 0 then call('XGROUP', 'DELCONSUMER', KEYS[s], ARGV[1], 'parked') end
  local rows = pcall_('XPENDING', KEYS[s], ARGV[1], '-', '+', 1, ARGV[2])
  if not rows.err then
    if #rows == 0 then
      call('XGROUP', 'DELCONSUMER', KEYS[s], ARGV[1], ARGV[2])
    else
      left = left + 1
    end
  end
end
return left
