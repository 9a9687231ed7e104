-- Takes a batch of new jobs: each becomes a stream entry, or waits for its due time, or is a duplicate of a known job.
--
-- KEYS  1 batch  2 live  3 queues  4 janitor  5-11 the queue, up to its rates
--       then, in the order in which the items' operations ask for them: record, unique and period keys
-- ARGV  1 batch number  2 seconds to remember it  3 queue  4 wake channel
--       then per item: operations, id, task, letter, and each operation's operand
--         t  keep a live record
--         n  the id is the caller's: refuse if it is known          (a key: its record)
--         u  hold this unique key until the job ends                (a key)
--         p  hold this key for some time, ended or not              (a key; operand: ms)
--         d  wait that long                                         (operand: ms)
--         a  wait until                                             (operand: server time in ms)
--         r  the task has a reservation of its own                  (operand: ms)
-- Returns a flat list of (index of a duplicate, id of the job that it duplicates); empty when all are new.
-- Closes: a batch sent twice after a lost reply makes no second job; two dispatches of one unique key can't both win,
-- and a key whose holder is gone, in whatever way, doesn't block the next.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return type(past) == 'string' and cjson.decode(past) or past end
local live, janitor = KEYS[2], KEYS[4]
local bad = mistyped({live, 'hash', KEYS[3], 'set', janitor, 'hash'})
if bad then return bad end
local queue, foreign = queue_at(5, 7, ARGV[3])
if foreign then return foreign end

local stream, channel, at = queue.stream, ARGV[4], now()
local queued = 'q ' .. queue.name .. ' '

-- A holder is alive while its live record is, and the entry or due time that the record speaks of.
local function alive(id)
  local record = call('HGET', live, id)
  if not record then return false end
  local state, place, entry = string.match(record, '^(%S+) (%S+) ?(%S*)$')
  -- It may stand in another queue, whose keys are ours but for the name at their end: in the same slot.
  if state == 'q' then
    local other = string.sub(stream, 1, #stream - #queue.name) .. place
    return #call('XRANGE', other, entry, entry, 'COUNT', 1) == 1
  end
  if state == 'b' then
    return call('HEXISTS', string.sub(queue.letters, 1, #queue.letters - #queue.name) .. place, id) == 1
  end
  return call('ZSCORE', string.sub(queue.due, 1, #queue.due - #queue.name) .. place, id) ~= false
end

-- The id of the living job that holds a key, or nil.
local function holder(key)
  if call('TYPE', key).ok ~= 'string' then return nil end
  return call('GET', key)
end

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

-- The longer way, for a job with any operation but t. Returns the id of the job that it duplicates, or nil.
local function take(operations, id, task, letter)
  local tracked, known, due_at, marks, unique, period, period_ms, rival
  marks = ''
  for c = 1, #operations do
    local operation = string.sub(operations, c, c)
    if operation == 't' then
      tracked = true
    elseif operation == 'n' then
      k = k + 1
      known = KEYS[k]
      if call('EXISTS', known) == 1 or alive(id) then rival = id end
    elseif operation == 'u' then
      k = k + 1
      unique = KEYS[k]
      local other = holder(unique)
      if other and other ~= id then
        if alive(other) then rival = rival or other end -- else it keeps its record: the audit tells how it ended
      end
    elseif operation == 'p' then
      k = k + 1
      period, period_ms = KEYS[k], ARGV[i]
      i = i + 1
      rival = rival or holder(period)
    else
      if operation == 'd' then
        due_at = at + tonumber(ARGV[i])
      elseif operation == 'a' then
        due_at = tonumber(ARGV[i])
      elseif operation == 'r' then
        marks = 'r ' .. ARGV[i]
      end
      i = i + 1
    end
  end
  if rival then return rival end
  if unique then call('SET', unique, id) end
  if period then call('SET', period, id, 'PX', period_ms) end
  if marks ~= '' then shorten(string.sub(marks, 3)) end
  local record
  if due_at and due_at > at then
    later(queue, id, due_at, 's', keep(task, marks, 't1', letter), channel)
    record = 's ' .. queue.name
  else
    record = queued .. enter(stream, marks, 't1', letter)
    count(task)
  end
  -- At once: a later item of this batch may ask for this holder.
  if tracked then call('HSET', live, id, record) end
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
    local rival = take(operations, id, task, letter)
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
if call('SADD', KEYS[3], queue.name) == 1 then call('PUBLISH', channel, 'lane') end
call('SET', KEYS[1], ARGV[1] .. ' ' .. cjson.encode(duplicates), 'EX', ARGV[2])
return duplicates
