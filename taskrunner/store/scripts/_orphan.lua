-- Put in front of the scripts that find jobs which nobody can run any more.

-- Ends such a job as failed: a dead letter with all that is left of it, and an outcome that says so.
--
-- here   as for conclude; janitor: key
-- since  when it was dispatched, as far as that is known, in ms
-- text   its letter as it is kept while waiting, sound or not; nil when there is none
-- Returns how many live records that has removed.
local function orphan(here, queue, id, since, why, text)
  local _, _, version, letter = kept(text)
  local job = version == 't1' and head(letter)
  local task, enqueued, runs, body, sizes = '', since, 0, text or '', text and '[' .. #text .. ']' or '[]'
  if job then
    task, enqueued, runs, body, sizes = job.task, job.enqueued, math.max(job.attempt - 1, 0), letter, 'null'
  end
  local buried = cjson.encode({legible(id), task, queue.name, runs, 0, here.at, 'Orphaned', why, '', 'orphaned'})
  bury(queue, id, task, here.at, string.sub(buried, 1, -2) .. ',' .. sizes .. ']\n' .. body)
  unwait(queue, {id}, {task})
  pcall_('HINCRBY', here.janitor, 'orphaned', 1)
  return conclude(here, id, job or nil, 'f',
    {'f', task, queue.name, runs, enqueued, here.at, 0, {'Orphaned', why, '', 'orphaned'}})
end
