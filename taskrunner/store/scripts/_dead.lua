-- Put in front of the scripts that fill or empty the dead letters.
--
-- A dead letter stands in three places: dead (id -> when it failed), dead_letters (id -> its record) and dead_tasks, whose
-- members sort by task and time, so that those of one task can be counted and paged through. These two functions keep
-- them in step.

local function place_of(task, at, id) return string.format('%s\n%015.0f\n%s', task, at, id) end

-- The task of a record: the second part of its JSON head.
local function task_of(record)
  local plain = string.match(record or '', '^%["[^"\\]*","([^"\\]*)",') -- as nearly always; a traceback is long
  if plain then return plain end
  local ok, row = pcall(cjson.decode, string.match(record or '', '^[^\n]*'))
  return ok and type(row) == 'table' and type(row[2]) == 'string' and row[2] or nil
end

-- Takes a dead letter away. Returns its record, or nil when there was none. Whoever knows the task and the instant of one
-- that is there says so: two hundred records, each read for its task alone, would take milliseconds.
local function unbury(queue, id, task, at)
  local record
  if not task then
    record, at = call('HGET', queue.dead_letters, id), call('ZSCORE', queue.dead, id)
    task = task_of(record)
  end
  if task and at then call('ZREM', queue.dead_tasks, place_of(task, at, id)) end
  call('ZREM', queue.dead, id)
  call('HDEL', queue.dead_letters, id)
  return record or nil
end

-- Puts a job to the dead letters; one of the same id that is there already is replaced.
local function bury(queue, id, task, at, record)
  if call('ZSCORE', queue.dead, id) then unbury(queue, id) end
  call('ZADD', queue.dead, at, id)
  call('HSET', queue.dead_letters, id, record)
  call('ZADD', queue.dead_tasks, 0, place_of(task, at, id))
end

-- Removes the oldest dead letters: those beyond the latest so many (most), and those that failed before an instant (ms); 0:
-- no such bound. At most 200 of them, or a megabyte: what one call leaves over is the next one's. Returns how many.
local function prune(queue, most, before)
  local beyond = most > 0 and call('ZCARD', queue.dead) - most or 0
  local aged = before > 0 and call('ZCOUNT', queue.dead, '-inf', string.format('(%.0f', before)) or 0
  local n, size = math.min(math.max(beyond, aged), 200), 0
  if n <= 0 then return 0 end
  local ids = call('ZRANGE', queue.dead, 0, n - 1)
  for each = 1, #ids do
    size = size + call('HSTRLEN', queue.dead_letters, ids[each])
    if each > 1 and size > 1000000 then return each - 1 end
    unbury(queue, ids[each])
  end
  return n
end

-- The same for the bounds of a runner, and counted: what they drop is never dropped silently.
local function drop(queue, janitor, most, age, at)
  local dropped = prune(queue, most, age > 0 and at - age or 0)
  if dropped > 0 then pcall_('HINCRBY', janitor, 'dead-dropped', dropped) end
  return dropped
end

-- The dead letters under these keys; of none where strangers are.
local function grave(dead, letters, tasks)
  if mistyped({dead, 'zset', letters, 'hash', tasks, 'zset'}) then return {} end
  return {dead = dead, dead_letters = letters, dead_tasks = tasks}
end

-- Whether a dead letter is there. Not a later one of the same id: what came here was made of this one.
local function buried(place, id, instant)
  local at = place.dead and call('ZSCORE', place.dead, id)
  return at and tonumber(at) == tonumber(instant)
end
