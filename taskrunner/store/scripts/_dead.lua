-- Put in front of the scripts that fill or empty the dead letters.
--
-- A dead letter stands in three places: dead (id -> when it failed), dead_letters (id -> its record) and dead_tasks, whose
-- members sort by task and time, so that those of one task can be counted and paged through. These two functions keep
-- them in step.

local function place_of(task, at, id) return string.format('%s\n%015.0f\n%s', task, at, id) end

-- The task of a record: the second part of its JSON head.
local function task_of(record)
  local ok, row = pcall(cjson.decode, string.match(record or '', '^[^\n]*'))
  return ok and type(row) == 'table' and type(row[2]) == 'string' and row[2] or nil
end

-- Takes a dead letter away. Returns its record, or nil when there was none.
local function unbury(queue, id)
  local record, at = call('HGET', queue.dead_letters, id), call('ZSCORE', queue.dead, id)
  local task = task_of(record)
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
