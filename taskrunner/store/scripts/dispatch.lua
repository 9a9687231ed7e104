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

-- The shortest reservation of a task of this queue: the reclaim script looks at nothing younger.
local function shorten(reservation)
  local shortest = tonumber(call('HGET', janitor, 'shortest:' .. queue.name) or math.huge)
  if tonumber(reservation) < shortest then call('HSET', janitor, 'shortest:' .. queue.name, reservation) end
end

local duplicates, records, added, total = {}, {}, {}, 0
local i, k = 5, 11

local function count(task)
  added[task] = (added[task] or 0) + 1
  total = total + 1
end

-- The next of the batch's keys and operands: each operation takes its own, in the order of the items.
local function key()
  k = k + 1
  return KEYS[k]
end

local function operand()
  i = i + 1
  return ARGV[i - 1]
end

-- What each operation wants for its job, and the rival that forbids it: the id of a job that is there, or '' for a tick or
-- a dead letter that is there no more. Only f and g write: a tick is spent, whatever becomes of its job.
local WANT = {}

function WANT.t(job) job.tracked = true end

function WANT.f(job)
  local ticks, fired = key(), key()
  if not advance(at, ticks, fired, operand(), operand(), operand(), operand(), operand()) then job.rival = '' end
end

function WANT.g(job)
  if not claim(key(), operand(), operand()) then job.rival = '' end
end

function WANT.n(job)
  if call('EXISTS', key()) == 1 or alive(here, job.id) then job.rival = job.id end
end

function WANT.u(job)
  job.unique = key()
  local other = holder(job.unique)
  -- A lost holder keeps its record: the audit tells how it ended.
  if other and other ~= job.id and alive(here, other) then job.rival = job.rival or other end
end

-- former: the job that waits in old, and whose place this one takes
function WANT.w(job)
  job.turn, job.unique, job.rest = 'w', key(), operand()
  local former = holder(job.unique)
  job.old = former and debounced(here, former)
  job.former = job.old and former
end

function WANT.l(job)
  job.turn, job.unique, job.following, job.rest = 'l', key(), key(), operand()
  local other, former = holder(job.unique), holder(job.following)
  job.busy = other and other ~= job.id and alive(here, other)
  job.old = former and parked(here, former)
  job.former = job.old and former
end

local graves -- of this queue, looked at once
function WANT.b(job)
  local dead, letters, tasks = key(), key(), key()
  graves = graves or grave(dead, letters, tasks)
  job.grave, job.outcome, job.instant = graves, key(), operand()
  if not job.rival and not buried(job.grave, job.id, job.instant) then job.rival = '' end
  if not job.rival and alive(here, job.id) then job.rival = job.id end
end

function WANT.p(job)
  job.period, job.period_ms = key(), operand()
  job.rival = job.rival or holder(job.period)
end

function WANT.d(job) job.due = at + tonumber(operand()) end

function WANT.a(job) job.due = tonumber(operand()) end

function WANT.r(job)
  job.reservation = operand()
  job.marks = 'r ' .. job.reservation
end

function WANT.e(job)
  job.needs = operand()
  job.marks = (job.marks == '' and 'n ' or job.marks .. ' n ') .. job.needs
end

-- Takes the keys that the job wants, and the dead letter that it was.
local function hold(job)
  if job.grave then
    unbury(job.grave, job.id, job.task, job.instant)
    call('DEL', job.outcome)
  end
  if job.former then job.id, job.letter = job.former, readdressed(job.letter, job.rest, job.former) end
  if job.busy then
    call('SET', job.following, job.id)
  elseif job.unique then
    call('SET', job.unique, job.id)
    -- The holder was lost, and who waited for it goes first, with these newer arguments.
    if job.turn == 'l' and job.former then
      call('DEL', job.following)
      unpark(job.old, job.id, job.task)
    end
  end
  if job.period and not job.former then call('SET', job.period, job.id, 'PX', job.period_ms) end
  if job.reservation then shorten(job.reservation) end
end

-- Puts the job where it goes: among the parked, as it waits for another job or for a seat; aside until its due time; or
-- into the stream.
local function place(job)
  local id, marks = job.id, job.marks
  if job.busy then return park_anew(here, job.old, queue, id, keep(job.task, marks, 't1', job.letter)) end
  if job.turn == 'w' then
    return wait_anew(here, job.old, queue, id, job.due, keep(job.task, marks, 't1', job.letter), channel)
  end
  local record
  if job.due and job.due > at then
    later(queue, id, job.due, 's', keep(job.task, marks, 't1', job.letter), channel)
    record = 's ' .. queue.name
  elseif job.needs and not join(here, queue.name, id, job.needs) then
    park(queue, id, at, keep(job.task, marks, 't1', job.letter))
    record = 'b ' .. queue.name
  else
    -- What it needs is for those who wait; a worker finds it in the letter.
    record = queued .. enter(stream, job.reservation and 'r ' .. job.reservation or '', 't1', job.letter)
    count(job.task)
  end
  -- At once: a later item of this batch may ask for this holder.
  if job.tracked then call('HSET', live, id, record) end
end

-- The longer way, for a job with any operation but t. Returns the id of the job that it duplicates, or nil.
local function take(operations, job)
  for c = 1, #operations do WANT[string.sub(operations, c, c)](job) end
  if job.rival and job.rival ~= job.former then return job.rival end
  hold(job)
  place(job)
  return job.former
end

local index, last = 0, #ARGV
while i <= last do
  local operations, id, task, letter = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  i = i + 4
  if operations == 't' then
    records[#records + 1] = id
    records[#records + 1] = queued .. call('XADD', stream, '*', 't1', letter)
    count(task)
  elseif operations == '' then
    call('XADD', stream, '*', 't1', letter)
    count(task)
  else
    local rival = take(operations, {id = id, task = task, letter = letter, marks = ''})
    if rival then
      duplicates[#duplicates + 1] = index
      duplicates[#duplicates + 1] = rival
    end
  end
  index = index + 1
end

if #records > 0 then call('HSET', live, unpack(records)) end
for task, n in pairs(added) do pcall_('HINCRBY', queue.waiting, task, n) end
if total > 0 then flow(queue.rates, 'arrived', total, at) end
if call('SADD', KEYS[3], queue.name) == 1 then pcall_('PUBLISH', channel, 'lane') end
let_next_go(here) -- where a run was found to be over
call('SET', KEYS[1], ARGV[1] .. ' ' .. cjson.encode(duplicates), 'EX', ARGV[2])
return duplicates
