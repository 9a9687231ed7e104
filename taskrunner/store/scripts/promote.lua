-- Moves jobs of one queue whose due time has come into its stream, or into the lines for what they need to run.
--
-- KEYS  1 live  2 watchers  3 janitor  4-13 the queue, up to its dead letters
-- ARGV  1 most jobs to move  2 queue  3 most bytes of letters to move  4 ms that an outcome is kept
--       5 prefix of the partition's keys: the leases, and the outcomes and unique keys of lost jobs are in the same slot
-- Returns {how many were moved, ms until the next is due or -1 when none waits, server time in ms,
--          how many of those moved were lost: their letters are gone or damaged}.
-- Closes: the crash in the middle (the entry is added before the due time is removed, in one script), two promoters
-- at the same job; a letter that somebody has damaged or deleted (eviction) and that would hold up all behind it.
local bad = mistyped({KEYS[1], 'hash', KEYS[2], 'hash', KEYS[3], 'hash'})
if bad then return bad end
local queue, foreign = queue_at(4, 10, ARGV[2])
if foreign then return foreign end
local at = now()
insist(queue.due)

-- Whether an entry can be made of it.
local function sound(marks, version)
  local _, words = string.gsub(marks or '', '%S+', '')
  return version and version ~= '' and words % 2 == 0 and words <= 100
end

queue.parked = ARGV[5] .. 'parked:' .. queue.name
local here = {live = KEYS[1], watchers = KEYS[2], janitor = KEYS[3], prefix = ARGV[5], ttl = ARGV[4], at = at,
  queues = ARGV[5] .. 'queues', channel = ARGV[5] .. 'wake'}
expire_runs(here)
local all, lost, looked = call('ZRANGEBYSCORE', queue.due, '-inf', at, 'LIMIT', 0, ARGV[1]), 0, 0
if #all > 0 then
  local records, ids, tasks, added, total, size = call('HMGET', here.live, unpack(all)), {}, {}, {}, 0, 0
  local blocked = {}
  for n = 1, #all do
    -- One by one: two hundred letters of a megabyte each would stop the server for a second.
    local text = call('HGET', queue.letters, all[n])
    size = size + #(text or '')
    if n > 1 and size > tonumber(ARGV[3]) then break end
    looked = n
    local task, marks, version, letter = kept(text)
    local is_sound, needs = sound(marks, version), mark(marks, 'n')
    if is_sound and needs and not join(here, queue.name, all[n], needs, mark(marks, 'w')) then
      blocked[all[n]] = text
    elseif is_sound then
      local entry = enter(queue.stream, marks, version, letter)
      if records[n] then call('HSET', here.live, all[n], 'q ' .. queue.name .. ' ' .. entry) end
      if task ~= '' then added[task] = (added[task] or 0) + 1 end
      total = total + 1
    else
      lost = lost + 1
      -- A stranger's due time for a job that is queued says nothing of that job.
      if string.sub(records[n] or '', 1, 2) ~= 'q ' then
        orphan(here, queue, all[n], at, text and 'its letter is damaged' or 'its letter was deleted', text or nil)
      end
    end
    ids[n], tasks[n] = all[n], task or ''
  end
  unwait(queue, ids, tasks)
  for id, letter in pairs(blocked) do
    park(queue, id, at, letter)
    call('HSET', here.live, id, 'b ' .. queue.name)
  end
  for task, n in pairs(added) do pcall_('HINCRBY', queue.waiting, task, n) end
  if total > 0 then flow(queue.rates, 'arrived', total, at) end
end
let_followers_go(here)
let_next_go(here)
local head = call('ZRANGE', queue.due, 0, 0, 'WITHSCORES')
return {looked, head[2] and math.max(0, math.ceil(tonumber(head[2]) - at)) or -1, at, lost}
