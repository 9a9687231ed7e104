-- Put in front of the scripts that end jobs because somebody wants them ended.
--
-- here  as for conclude; at: now; channel: of the wakes; leave: whether finished entries leave the stream;
--       usual: ms that an outcome is kept when the job itself says nothing of it; reservation: ms that a run which goes
--       on keeps its seats, unless its worker renews them

-- What there is to end of a job that waits: where it stands, its letter, and what that says.
local function waiting_one(queue, id, state, text)
  local task, _, version, letter = kept(text)
  local job = version == 't1' and head(letter) or nil
  return {id = id, member = id, state = state, task = task or '', letter = letter or '', job = job}
end

-- The same of an entry; held: the groups in which a worker holds it, as whoever cancels need not know the workers' own. Returns nil when nobody holds it and it is gone:
-- then the audit tells how its job ended.
local function entered_one(queue, entry)
  local row, held = pcall_('XRANGE', queue.stream, entry, entry), {}
  local fields = not row.err and row[1] and row[1][2]
  for _, group in ipairs(groups_of(queue.stream)) do
    local rows = pcall_('XPENDING', queue.stream, group.name, entry, entry, 1)
    if not rows.err and rows[1] then held[#held + 1] = group.name end
  end
  if not fields and #held == 0 then return nil end
  fields = fields or {}
  local job = fields[1] == 't1' and head(fields[2]) or nil
  return {id = job and job.id, state = 'q', entry = entry, held = held, task = job and job.task or '',
    letter = fields[2] or '', job = job}
end

-- A job of this queue that has not ended, or nil; and the name of the queue where it stands, if that is another one.
local function sought(here, queue, id)
  local record = call('HGET', here.live, id)
  if not record then
    -- Without a live record: only one that waits for its time can be found.
    local one = call('ZSCORE', queue.due, id) and waiting_one(queue, id, 's', call('HGET', queue.letters, id) or nil)
    return one and one.job and one.job.id == id and one or nil
  end
  local state, name, entry = string.match(record, '^(%S+) (%S+) ?(%S*)')
  if name ~= queue.name then return nil, name end
  if state ~= 'q' then return waiting_one(queue, id, state, call('HGET', queue.letters, id) or nil) end
  local one = entered_one(queue, entry)
  if one then one.id = id end
  return one
end

-- Ends such a job. Its entry is acknowledged, which makes the token of whoever runs it worthless: what that run comes to
-- is refused, and its worker is told to cut it.
-- Returns ms that it is known as cancelled; nil when it keeps no record, or none is wanted.
local function cancel(here, queue, one, wanted)
  local job, ttl = one.job, here.usual
  if one.state == 'q' then
    for _, group in ipairs(one.held) do call('XACK', queue.stream, group, one.entry) end
    if #one.held > 0 and not here.leave then
      pcall_('HINCRBY', queue.rates, 'kept', 1)
    else
      call('XDEL', queue.stream, one.entry)
    end
    if one.task ~= '' then pcall_('HINCRBY', queue.waiting, one.task, -1) end
    if #one.held > 0 then
      if one.id and job and job.needs then outlive(here, one.id, needs_of(here, job.needs), here.reservation) end
      pcall_('PUBLISH', here.channel, 'cancel ' .. queue.name .. ' ' .. one.entry)
    end
  elseif one.state ~= 'b' then -- else conclude sees to it
    unwait(queue, {one.member}, {one.task})
  end
  if not one.id then return nil end -- it says nothing of any job
  local ended
  if wanted and (not job or job.flags % 4 >= 2) then
    local own = job and tonumber(job.options.result_ttl)
    if own and own > 0 and own < 1e10 then ttl = string.format('%.0f', math.max(1, own * 1000)) end
    local runs = job and (one.state == 'q' and #one.held > 0 and job.attempt or job.attempt - 1) or 0
    ended = {'c', one.task, queue.name, runs, job and job.enqueued or 0, here.at, 0}
  end
  here.ttl = ttl
  conclude(here, one.id, job, 'c', ended)
  for _, kind in ipairs({'saved:', 'progress:'}) do
    local key = here.prefix .. kind .. one.id
    if ended then pcall_('PEXPIRE', key, ttl) else pcall_('DEL', key) end -- nobody could ask for it any more
  end
  return ended and ttl or nil
end
