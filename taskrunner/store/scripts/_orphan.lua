-- Put in front of the scripts that find jobs which nobody can run any more.

-- A name as JSON can carry it: strangers' bytes that are no UTF-8 would make the list of dead letters unreadable.
local function legible(name)
  local rest = name
  for _, sequence in ipairs({'[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '\237[\128-\159][\128-\191]',
    '[\225-\236\238\239][\128-\191][\128-\191]', '[\240-\244][\128-\191][\128-\191][\128-\191]'}) do
    rest = string.gsub(rest, sequence, ' ')
  end
  return string.find(rest, '[\128-\255]') and string.gsub(name, '[\128-\255]', '?') or name
end

-- The head of a letter, as wire.unseal takes it, or nil.
local function head(letter)
  local text = string.match(letter or '', '^([^\n]*)\n')
  if not text or #text > 64000 then return nil end
  local ok, row = pcall(cjson.decode, text)
  if not ok or type(row) ~= 'table' then return nil end
  local id, task, enqueued, flags, attempt, extras = row[1], row[2], row[3], row[4], row[5] or 1, row[6] or {}
  if type(id) ~= 'string' or type(task) ~= 'string' or type(flags) ~= 'number' or type(extras) ~= 'table' then
    return nil
  end
  if type(enqueued) ~= 'number' or type(attempt) ~= 'number' or enqueued < 0 or enqueued >= 1e14 or attempt > 1e9 then
    return nil
  end
  if legible(task) ~= task then return nil end
  return {id = id, task = task, enqueued = enqueued, attempt = attempt, unique = extras.u}
end

-- Ends a job: a dead letter with all that is left of it, and an outcome that says so. Whoever waits for it is told.
--
-- here   live, watchers, janitor: keys; prefix: of the partition's keys, for the outcome and the unique key, which are in
--        the same slot; ttl: ms that an outcome is kept; at: now
-- queue  name; due, letters, dead, dead_letters: keys
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
  local ended = {'f', task, queue.name, runs, enqueued, here.at, 0, {'Orphaned', why, '', 'orphaned'}}
  call('SET', here.prefix .. 'job:' .. id, cjson.encode(ended) .. '\n', 'PX', here.ttl, 'NX')
  local buried = cjson.encode({legible(id), task, queue.name, runs, 0, here.at, 'Orphaned', why, '', 'orphaned'})
  call('HSET', queue.dead_letters, id, string.sub(buried, 1, -2) .. ',' .. sizes .. ']\n' .. body)
  call('ZADD', queue.dead, here.at, id)
  call('ZREM', queue.due, id)
  call('HDEL', queue.letters, id)
  if job and type(job.unique) == 'string' then
    local key = here.prefix .. 'unique:' .. job.unique
    if pcall_('GET', key) == id then call('DEL', key) end
  end
  local removed = call('HDEL', here.live, id)
  for one in string.gmatch(call('HGET', here.watchers, id) or '', '%S+') do call('PUBLISH', one, id) end
  call('HDEL', here.watchers, id)
  pcall_('HINCRBY', here.janitor, 'orphaned', 1)
  return removed
end
