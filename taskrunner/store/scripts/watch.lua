-- Reads the outcome of a job, or asks to be told on a channel when there is one.
--
-- KEYS  1 record  2 live  3 watchers
-- ARGV  1 id  2 channel
-- Returns the outcome's record; or 1 when the job lives and the channel will hear its id; or nil when it is unknown.
-- Closes: the job that ends between the look and the wish.
local record = call('GET', KEYS[1])
if record then return record end
if call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return nil end
wish(KEYS[3], ARGV[1], ARGV[2])
return 1
