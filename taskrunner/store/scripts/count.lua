-- Counts the jobs of one queue that are in one state. Changes nothing.
--
-- KEYS  1-14 the queue
-- ARGV  1 group  2 state: queued, running, scheduled, retrying, blocked or failed  3 task, '' for all
-- Returns how many. Of one task it can't tell what is running, as a worker takes an entry without looking at it: for
-- running it returns those of all tasks, and for queued those that are queued or running.
local queue, foreign = queue_at(1, 14, '')
if foreign then return foreign end
local state, task = ARGV[2], ARGV[3]

local function pending()
  local summary = pcall_('XPENDING', queue.stream, ARGV[1])
  return not summary.err and summary[1] or 0
end

if state == 'running' then return pending() end
if state == 'queued' then
  if task ~= '' then return math.max(0, tonumber(call('HGET', queue.waiting, task)) or 0) end
  local kept_entries = tonumber(call('HGET', queue.rates, 'kept') or 0) or 0
  return math.max(0, call('XLEN', queue.stream) - pending() - kept_entries)
end
if state == 'failed' then
  if task == '' then return call('ZCARD', queue.dead) end
  return call('ZLEXCOUNT', queue.dead_tasks, '[' .. task .. '\n', '(' .. task .. '\n:') -- the digits come before a colon
end
if task ~= '' then
  return tonumber(call('HGET', queue.tallies, string.sub(state, 1, 1) .. ' ' .. task)) or 0
end
if state == 'retrying' then return call('ZCARD', queue.retrying) end
if state == 'scheduled' then return call('ZCARD', queue.due) - call('ZCARD', queue.retrying) end
-- Blocked: parked jobs have nothing but their tallies here; there are as many rows as tasks.
local n, rows = 0, call('HGETALL', queue.tallies)
for r = 1, #rows, 2 do
  if string.sub(rows[r], 1, 2) == 'b ' then n = n + rows[r + 1] end
end
return n
