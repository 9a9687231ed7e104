-- Put in front of the scripts that end jobs which no worker will end.

-- A name as JSON can carry it: strangers' bytes that are no UTF-8 would make the list of dead letters unreadable.
local function legible(name)
  if not string.find(name, '[\128-\255]') then return name end
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
  return {id = id, task = task, enqueued = enqueued, attempt = attempt, unique = extras.u, flags = flags,
    needs = type(extras.n) == 'string' and extras.n or nil,
    options = type(extras.o) == 'table' and extras.o or {}}
end

-- Ends a job in the books: its outcome, its unique key, its seats, its live record, and whoever waits for it is told. At
-- its end the script lets those go who stand in line behind it (let_next_go).
--
-- here  as for the leases, and watchers: key; ttl: ms that an outcome is kept. The outcome, the unique key, the leases and
--       the workflows are in the same slot.
-- job   what head() says of its letter, or nil when there is none
-- how   it ended: f failed, c cancelled; at its end the script lets those go on that waited for it (let_followers_go)
-- ended what is kept of its end, as wire.record has it, or nil
-- Returns how many live records that has removed.
local function conclude(here, id, job, how, ended)
  local record = ended and cjson.encode(ended) .. '\n'
  if record then call('SET', here.prefix .. 'job:' .. id, record, 'PX', here.ttl, 'NX') end
  local parked = string.match(call('HGET', here.live, id) or '', '^b (%S+)$')
  if parked then
    unpark(queue_named(here.prefix, parked), id, job and job.task or '')
  end
  local removed = call('HDEL', here.live, id)
  if job and job.needs then leave(here, id, needs_of(here, job.needs)) end
  if job and type(job.unique) == 'string' then release(here, here.prefix .. 'unique:' .. job.unique, id) end
  for one in string.gmatch(call('HGET', here.watchers, id) or '', '%S+') do pcall_('PUBLISH', one, id) end
  call('HDEL', here.watchers, id)
  note_ends(here, {id}, {how}, {record})
  return removed
end
