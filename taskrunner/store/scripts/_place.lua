-- Put in front of the script that takes new jobs: a new one takes the place of a job that waits under the same unique key.
-- The job that waits keeps its id, and gets all the rest: letter, due time, queue.
--
-- here  live: key; prefix: of the partition's keys; at: now

-- A letter under the id of another job. rest: where in it its own id has ended.
local function readdressed(letter, rest, id) return '[' .. cjson.encode(id) .. string.sub(letter, rest) end

-- The queues in which jobs of this batch waited, looked at once.
local former_queues = {}

-- The queue in which a job waits whose live record is like that, or nil: one that is not there, or where strangers are.
local function waits(here, id, record)
  local name = string.match(call('HGET', here.live, id) or '', record)
  if not name then return nil end
  local queue = former_queues[name]
  if queue == nil then
    queue = queue_named(here.prefix, name)
    local kinds = {queue.due, 'zset', queue.letters, 'hash', queue.retrying, 'zset', queue.tallies, 'hash'}
    if mistyped(kinds) then queue = false end
    former_queues[name] = queue
  end
  return queue or nil
end

-- Of unique="debounce": a job that nobody has promoted since it was dispatched. After a snooze it has no such record.
local function debounced(here, id)
  local queue = waits(here, id, '^s (%S+) debounce$')
  return queue and call('ZSCORE', queue.due, id) and queue or nil
end

-- Of unique="latest": a job that waits for the holder of its key.
local function parked(here, id) return waits(here, id, '^b (%S+)$') end

-- Puts a debounced job aside until a due time, as a new one or in the place of what waits in old.
local function wait_anew(here, old, queue, id, at, text, channel)
  later(queue, id, at, 's', text, channel)
  if old and old.name == queue.name then return end
  if old then unwait(old, {id}, {string.match(text, '^[^\n]*')}) end
  call('HSET', here.live, id, 's ' .. queue.name .. ' debounce')
end

-- Parks a job, as a new one or in the place of what waits in old.
local function park_anew(here, old, queue, id, text)
  if old and old.name == queue.name then
    call('HSET', queue.letters, id, text)
    return
  end
  if old then unpark(old, id, string.match(text, '^[^\n]*')) end
  park(queue, id, here.at, text)
  call('HSET', here.live, id, 'b ' .. queue.name)
end
