-- Put in front of the scripts that take jobs: what a job wants, and where it goes. An item says so by operations, each of
-- which has keys and operands of its own; the header of dispatch.lua names them.
--
-- here  as for the leases

-- Where the next key and the next operand come from: k and o are those that were taken last.
local source = {}

local function key()
  source.k = source.k + 1
  return source.keys[source.k]
end

local function operand()
  source.o = source.o + 1
  return source.operands[source.o]
end

-- The shortest reservation of a task of a queue: the reclaim script looks at nothing younger.
local function shorten(here, queue, reservation)
  local shortest = tonumber(call('HGET', here.janitor, 'shortest:' .. queue.name) or math.huge)
  if tonumber(reservation) < shortest then call('HSET', here.janitor, 'shortest:' .. queue.name, reservation) end
end

-- Counts a job that has come into the stream; in the books at the end, by count_in.
local function count(queue, task)
  queue.added = queue.added or {}
  queue.added[task] = (queue.added[task] or 0) + 1
  queue.total = (queue.total or 0) + 1
end

local function count_in(here, queue)
  for task, n in pairs(queue.added or {}) do pcall_('HINCRBY', queue.waiting, task, n) end
  if queue.total then flow(queue.rates, 'arrived', queue.total, here.at) end
  queue.added, queue.total = nil, nil
  if call('SADD', here.queues, queue.name) == 1 then pcall_('PUBLISH', here.channel, 'lane') end
end

-- What each operation wants for its job, and the rival that forbids it: the id of a job that is there.
local WANT = {}

function WANT.t(here, job) job.tracked = true end

function WANT.n(here, job)
  if call('EXISTS', key()) == 1 or alive(here, job.id) then job.rival = job.id end
end

function WANT.u(here, job)
  job.unique = key()
  local other = holder(job.unique)
  -- A lost holder keeps its record: the audit tells how it ended.
  if other and other ~= job.id and alive(here, other) then job.rival = job.rival or other end
end

-- former: the job that waits in old, and whose place this one takes
function WANT.w(here, job)
  job.turn, job.unique, job.rest = 'w', key(), operand()
  local former = holder(job.unique)
  job.old = former and debounced(here, former)
  job.former = job.old and former
end

function WANT.l(here, job)
  job.turn, job.unique, job.following, job.rest = 'l', key(), key(), operand()
  local other, former = holder(job.unique), holder(job.following)
  job.busy = other and other ~= job.id and alive(here, other)
  job.old = former and parked(here, former)
  job.former = job.old and former
end

function WANT.p(here, job)
  job.period, job.period_ms = key(), operand()
  job.rival = job.rival or holder(job.period)
end

function WANT.d(here, job) job.due = here.at + tonumber(operand()) end

function WANT.a(here, job) job.due = tonumber(operand()) end

function WANT.r(here, job)
  job.reservation = operand()
  job.marks = 'r ' .. job.reservation
end

function WANT.e(here, job)
  job.needs = operand()
  job.marks = (job.marks == '' and 'n ' or job.marks .. ' n ') .. job.needs
end

-- Takes the keys that the job wants, and what it was before (reborn).
local function hold(here, queue, job)
  if job.reborn then job.reborn() end
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
  if job.reservation then shorten(here, queue, job.reservation) end
end

-- Puts the job where it goes: among the parked, as it waits for another job or for a seat; aside until its due time; or
-- into the stream.
local function place(here, queue, job)
  local id, marks = job.id, job.marks
  if job.busy then return park_anew(here, job.old, queue, id, keep(job.task, marks, 't1', job.letter)) end
  if job.turn == 'w' then
    return wait_anew(here, job.old, queue, id, job.due, keep(job.task, marks, 't1', job.letter), here.channel)
  end
  local record
  if job.due and job.due > here.at then
    later(queue, id, job.due, 's', keep(job.task, marks, 't1', job.letter), here.channel)
    record = 's ' .. queue.name
  elseif job.needs and not join(here, queue.name, id, job.needs) then
    park(queue, id, here.at, keep(job.task, marks, 't1', job.letter))
    record = 'b ' .. queue.name
  else
    -- What it needs is for those who wait; a worker finds it in the letter.
    local entry = enter(queue.stream, job.reservation and 'r ' .. job.reservation or '', 't1', job.letter)
    record = 'q ' .. queue.name .. ' ' .. entry
    count(queue, job.task)
  end
  -- At once: a later item of this batch may ask for this holder.
  if job.tracked then call('HSET', here.live, id, record) end
end

-- The longer way, for a job with any operation but t. Returns the id of the job that it duplicates, or nil.
local function take(here, queue, operations, job)
  for c = 1, #operations do WANT[string.sub(operations, c, c)](here, job) end
  if job.rival and job.rival ~= job.former then return job.rival end
  hold(here, queue, job)
  place(here, queue, job)
  return job.former
end
