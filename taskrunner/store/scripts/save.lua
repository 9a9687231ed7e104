-- Keeps what a run saved in the place of what the job saved before, if the job is still that run's.
--
-- KEYS  1 what the job saved  2 stream
-- ARGV  1 group  2 consumer  3 entry id  4 delivery count  5 seconds to keep it  6 value
-- Returns 1; or 0 when the token is stale, and then nothing is written.
-- Closes: a run that has lost its job, or whose job was cancelled or deleted, and that saves before it hears of it: it
-- would replace what the new owner saved, or leave a value of a job that is known no more.
local bad = mistyped({KEYS[1], 'string', KEYS[2], 'stream'})
if bad then return bad end
local rows = pcall_('XPENDING', KEYS[2], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if rows.err or not rows[1] or rows[1][4] ~= tonumber(ARGV[4]) then return 0 end
call('SET', KEYS[1], ARGV[6], 'EX', ARGV[5])
return 1
