-- Put in front of the scripts that end jobs.

-- Frees a unique key if it is this job's, and lets the job that waits for it go on: the one with the newest arguments, of
-- unique="latest". One step, so that no third job gets between them.
--
-- here  live: key; prefix: of the partition's keys; at: now. The queue of the job that waits is in the same slot.
local function release(here, key, id)
  if pcall_('GET', key) ~= id then return end -- it may hold anything
  call('DEL', key)
  local following = here.prefix .. 'next:' .. string.sub(key, #here.prefix + #'unique:' + 1)
  local heir = pcall_('GET', following)
  if type(heir) ~= 'string' then return end
  call('DEL', following)
  local name = string.match(call('HGET', here.live, heir) or '', '^b (%S+)$')
  if not name then return end
  local queue = queue_named(here.prefix, name)
  local text = pcall_('HGET', queue.letters, heir)
  local task, marks, version, letter = kept(type(text) == 'string' and text or '')
  if not letter or mistyped({queue.stream, 'stream'}) then return end -- the audit ends what has lost its letter
  call('SET', key, heir)
  call('HDEL', queue.letters, heir)
  tally(queue, 'b', task, -1)
  call('HSET', here.live, heir, 'q ' .. name .. ' ' .. enter(queue.stream, marks, version, letter))
  pcall_('HINCRBY', queue.waiting, task, 1)
  flow(queue.rates, 'arrived', 1, here.at)
end
