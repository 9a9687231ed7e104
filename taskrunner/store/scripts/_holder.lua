-- Put in front of the script that takes new jobs: who holds what a new job wants.
--
-- here  live: key; prefix: of the partition's keys

-- A holder is alive while its live record is, and what the record speaks of: an entry, a letter or a due time. It may
-- stand in another queue, whose keys are in the same slot.
local function alive(here, id)
  local record = call('HGET', here.live, id)
  if not record then return false end
  local state, queue, entry = string.match(record, '^(%S+) (%S+) ?(%S*)$')
  if state == 'q' then return #call('XRANGE', here.prefix .. 'stream:' .. queue, entry, entry, 'COUNT', 1) == 1 end
  if state == 'b' then return call('HEXISTS', here.prefix .. 'letters:' .. queue, id) == 1 end
  return call('ZSCORE', here.prefix .. 'due:' .. queue, id) ~= false
end

-- The id of the job that holds a key, alive or not, or nil.
local function holder(key)
  if call('TYPE', key).ok ~= 'string' then return nil end
  return call('GET', key)
end
