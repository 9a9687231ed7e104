-- Removes what is kept of the outcome of a job that has ended. Its dead letter, if it has one, stays.
--
-- KEYS  1 batch  2 live  3 record  4 what the job saved  5 how far it was
-- ARGV  1 batch number  2 seconds to remember it  3 id  4 prefix of the partition's keys: the lists of jobs that have ended
--         are those of the lane which only the record names, in the same slot
-- Returns '1'; or '0': the job has not ended, or nothing is known of it, and nothing was changed.
-- Closes: the job that is dispatched anew under its id, or run again as a dead letter, between a look and the removal; and
-- the lost reply: asked again it answers as it did, and not that there was nothing.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local bad = mistyped({KEYS[2], 'hash', KEYS[3], 'string', KEYS[4], 'string', KEYS[5], 'string'})
if bad then return bad end

local reply = '0'
-- What a job without a record has saved may be of one that lives and is not tracked: it ends by itself.
local record = call('HEXISTS', KEYS[2], ARGV[3]) == 0 and call('GET', KEYS[3])
if record then
  call('DEL', KEYS[3], KEYS[4], KEYS[5])
  local ok, row = pcall(cjson.decode, string.match(record, '^[^\n]*'))
  local list = ok and type(row) == 'table' and ({s = 'succeeded:', c = 'cancelled:', e = 'expired:'})[row[1]]
  if list and type(row[3]) == 'string' then pcall_('LREM', ARGV[4] .. list .. row[3], 0, ARGV[3]) end
  reply = '1'
end
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
