-- Takes a batch of new jobs: each becomes a stream entry, or waits for its due time, or is a duplicate of a known job.
--
-- KEYS  1 batch  2 live  3 queues  4 janitor  5-11 the queue, up to its rates
--       then, in the order in which the items' operations ask for them: record, unique, next, period and dead keys; then
--       the leases that the items name
-- ARGV  1 batch number  2 seconds to remember it  3 queue  4 wake channel
--       then per item: operations, id, task, letter, and each operation's operand
--         f  only as the tick of a schedule that is due       (two keys: ticks, fired; operands: member of ticks, name of
--            the schedule, the tick that it must stand at, the one after it or nothing, the tick to fire)
--         g  only as a tick after the latest that was fired         (a key: fired; operands: name, tick)
--         t  keep a live record
--         n  the id is the caller's: refuse if it is known          (a key: its record)
--         u  hold this unique key until the job ends                (a key)
--         w  the same; but a job that waits under it, dispatched with w and not promoted yet, is replaced by this one,
--            and then anybody else who holds it keeps it no longer  (a key; operand: where in the letter its id has ended)
--         l  the same as u; but while another job holds it this one is parked, or replaces the one that is parked
--                                                                   (keys: unique, next; operand: as of w)
--         p  hold this key for some time, ended or not              (a key; operand: ms)
--         d  wait that long                                         (operand: ms)
--         a  wait until                                             (operand: server time in ms)
--         r  the task has a reservation of its own                  (operand: ms)
--         e  it needs seats or permits to run: it takes its place in line, and is parked if it could not run now
--                                                                   (operand: needs)
--         b  back from the dead: only if the dead letter of that instant is still there and no job of that id lives;
--            takes it and the outcome away     (keys: dead, dead-letters, dead-tasks, record; operand: its instant, ms)
-- Returns a flat list of (index of a duplicate, id of the job that it duplicates); empty when all are new.
-- An empty id: that tick (f, g) was fired already or is not there, or that dead letter (b) is not there any more.
-- A job that takes the place of one that waits (w, l) counts as its duplicate: that one's id is what both are known by.
-- Closes: a batch sent twice after a lost reply makes no second job; two dispatches of one unique key can't both win,
-- and a key whose holder is gone, in whatever way, doesn't block the next; the promotion or the end of a job in the
-- instant in which another one would replace it; two people who bring back the same dead letter, or one who deletes it;
-- two schedulers that fire a tick, or one that was asleep and fires that of a definition which was replaced meanwhile.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return type(past) == 'string' and cjson.decode(past) or past end
local live, janitor = KEYS[2], KEYS[4]
local bad = mistyped({live, 'hash', KEYS[3], 'set', janitor, 'hash'})
if bad then return bad end
local queue, foreign = queue_at(5, 7, ARGV[3])
if foreign then return foreign end

local stream, channel, at = queue.stream, ARGV[4], now()
local queued = 'q ' .. queue.name .. ' '
local here = {live = live, queues = KEYS[3], janitor = janitor, channel = channel, at = at,
  prefix = string.sub(stream, 1, -#('stream:' .. queue.name) - 1)}
queue.parked = here.prefix .. 'parked:' .. queue.name

local duplicates, records, added, total = {}, {}, {}, 0
source.keys, source.k, source.operands, source.o = KEYS, 11, ARGV, 4

-- A rival '': a tick or a dead letter that is there no more. Only f and g write: a tick is spent, whatever becomes of its
-- job.
function WANT.f(_, job)
  local ticks, fired = key(), key()
  if not advance(at, ticks, fired, operand(), operand(), operand(), operand(), operand()) then job.rival = '' end
end

function WANT.g(_, job)
  if not claim(key(), operand(), operand()) then job.rival = '' end
end

local graves -- of this queue, looked at once
function WANT.b(_, job)
  local dead, letters, tasks = key(), key(), key()
  graves = graves or grave(dead, letters, tasks)
  local outcome, instant = key(), operand()
  if not job.rival and not buried(graves, job.id, instant) then job.rival = '' end
  if not job.rival and alive(here, job.id) then job.rival = job.id end
  function job.reborn()
    unbury(graves, job.id, job.task, instant)
    call('DEL', outcome)
  end
end

local index, last = 0, #ARGV
while source.o < last do
  local i = source.o
  local operations, id, task, letter = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  source.o = i + 4
  if operations == 't' then
    records[#records + 1] = id
    records[#records + 1] = queued .. call('XADD', stream, '*', 't1', letter)
    added[task], total = (added[task] or 0) + 1, total + 1
  elseif operations == '' then
    call('XADD', stream, '*', 't1', letter)
    added[task], total = (added[task] or 0) + 1, total + 1
  else
    local rival = take(here, queue, operations, {id = id, task = task, letter = letter, marks = ''})
    if rival then
      duplicates[#duplicates + 1] = index
      duplicates[#duplicates + 1] = rival
    end
  end
  index = index + 1
end

if #records > 0 then call('HSET', live, unpack(records)) end
for task, n in pairs(queue.added or {}) do added[task], total = (added[task] or 0) + n, total + n end
queue.added, queue.total = added, total > 0 and total or nil
count_in(here, queue)
let_next_go(here) -- where a run was found to be over
call('SET', KEYS[1], ARGV[1] .. ' ' .. cjson.encode(duplicates), 'EX', ARGV[2])
return duplicates
