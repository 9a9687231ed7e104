-- Put behind _cancel.lua in the scripts that know of jobs only by their ids.
--
-- here  as for cancel

-- Cancels a job, in whatever queue of the partition it stands. Returns false when there is none that has not ended.
local function cancel_by_id(here, id)
  local record = call('HGET', here.live, id)
  local queue = record and open_queue(here, string.match(record, '^%S+ (%S+)') or '')
  local one = queue and sought(here, queue, id)
  if not one then return false end
  local ttl = cancel(here, queue, one, true)
  if ttl then recent(queue.cancelled, {id}, ttl) end
  return true
end
