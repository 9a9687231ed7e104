-- Pauses a queue or lets it go on: changes the set of those that no worker reads, and tells all workers.
--
-- KEYS  1 paused  2 workers
-- ARGV  1 'pause' or 'resume'  2 queue, or '*' for all of them  3 wake channel
--       4 a channel and a word to answer with when that is done, or ''
-- Returns 1 when that changed something. Resuming '*' ends each queue's own pause too.
-- Closes: a server that is out of memory, where an operator wants to stop the work more than ever (SADD alone would be
-- refused); a change without its notice.
local bad = mistyped({KEYS[1], 'set', KEYS[2], 'zset'})
if bad then return bad end
insist(KEYS[2])
local changed
if ARGV[1] == 'pause' then
  changed = call('SADD', KEYS[1], ARGV[2])
elseif ARGV[2] == '*' then
  changed = call('DEL', KEYS[1])
else
  changed = call('SREM', KEYS[1], ARGV[2])
end
local notice = ARGV[4] == '' and 'paused' or 'paused ' .. ARGV[4]
pcall_('PUBLISH', ARGV[3], notice) -- a user without the right to: then workers see it with their next look
return changed
