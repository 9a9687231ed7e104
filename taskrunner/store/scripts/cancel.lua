-- Ends a job as cancelled, wherever it stands: waiting for its time or for another job, in the stream, in a worker's hands.
--
-- KEYS  1 batch  2 live  3 watchers  then the queue
-- ARGV  1 batch number  2 seconds to remember it  3 queue  4 wake channel
--       5 prefix of the partition's keys: the outcome, the unique key and the leases are in the same slot, and so are the
--         queues of jobs that wait for them
--       6 ms that an outcome is kept, if the job itself says nothing of it  7 '1': finished entries leave the stream
--       8 ms that a run which goes on keeps its seats  9 id  10 '1': its letter is wanted, if it was waiting
-- Returns '0': it is unknown here, or has ended; '1', a newline and the letter: it was waiting; '2': a worker has it, and
-- is told; 'elsewhere': it stands in another queue, and nothing was changed.
-- Closes: the job that moves on while somebody looks for it. Whatever its worker, a promoter or a reclaimer does with it
-- comes before, and then it is found where that has put it, or after, and then finds nothing: a settle has a token that
-- fits no more. And the lost reply: asked again it answers as it did, and not that the job had ended before.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local bad = mistyped({KEYS[2], 'hash', KEYS[3], 'hash'})
if bad then return bad end
local queue, foreign = queue_at(4, #KEYS - 3, ARGV[3])
if foreign then return foreign end
local here = {live = KEYS[2], watchers = KEYS[3], prefix = ARGV[5], at = now(), channel = ARGV[4], usual = ARGV[6],
  leave = ARGV[7] == '1', reservation = tonumber(ARGV[8]), queues = ARGV[5] .. 'queues', janitor = ARGV[5] .. 'janitor'}
bad = mistyped({here.queues, 'set', here.janitor, 'hash'})
if bad then return bad end
insist(queue.due)

local reply = '0'
local one, other = sought(here, queue, ARGV[9])
if other then
  reply = 'elsewhere'
elseif one then
  local ttl = cancel(here, queue, one, true)
  if ttl then recent(queue.cancelled, {one.id}, ttl) end
  local is_held = one.held and #one.held > 0
  reply = is_held and '2' or '1\n' .. (ARGV[10] == '1' and one.letter or '')
end
let_followers_go(here)
let_next_go(here)
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
