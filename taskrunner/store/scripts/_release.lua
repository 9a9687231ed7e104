-- Put in front of the scripts that end jobs.

-- The queues in which parked jobs stand, looked at once: what stands under their keys may be a stranger's.
local queues_of_heirs = {}
local function queue_of_heir(here, name)
  local queue = queues_of_heirs[name]
  if not queue then
    queue = queue_named(here.prefix, name)
    queue.has_stream = mistyped({queue.stream, 'stream'}) == nil
    queue.has_rates = mistyped({queue.rates, 'hash'}) == nil
    queues_of_heirs[name] = queue
  end
  return queue
end

-- Lets a parked job go on: the one with the newest arguments, of unique="latest". It holds the key from now on.
-- Returns whether there was such a job, and a letter to make its entry of; else nothing was changed.
--
-- here  as for the leases. The queue of the job that waits is in the same slot.
local function wake(here, key, id)
  local name = string.match(call('HGET', here.live, id) or '', '^b (%S+)$')
  if not name then return false end
  local queue = queue_of_heir(here, name)
  local text = pcall_('HGET', queue.letters, id)
  local task, marks, version, letter = kept(type(text) == 'string' and text or '')
  local _, words = string.gsub(marks or '', '%S+', '')
  if not letter or version == '' or words % 2 == 1 or words > 100 or not queue.has_stream then
    return false -- the audit ends what has lost its letter
  end
  call('SET', key, id)
  local needs = mark(marks, 'n')
  if needs and not join(here, name, id, needs) then return true end -- it goes on waiting, in line now
  unpark(queue, id, task)
  call('HSET', here.live, id, 'q ' .. name .. ' ' .. enter(queue.stream, marks, version, letter))
  pcall_('HINCRBY', queue.waiting, task, 1)
  if queue.has_rates then flow(queue.rates, 'arrived', 1, here.at) end
  return true
end

-- The key under which a parked job stands, from the unique key that it waits for.
local function next_of(here, key) return here.prefix .. 'next:' .. string.sub(key, #here.prefix + #'unique:' + 1) end

-- Frees a unique key if it is this job's, and lets the job that waits for it go on. One step, so that no third job gets
-- between them. A job that ends while it is parked itself holds no key, but its place.
local function release(here, key, id)
  local following = next_of(here, key)
  local heir = pcall_('GET', following)
  if pcall_('GET', key) ~= id then -- it may hold anything
    if heir == id then call('DEL', following) end
    return
  end
  call('DEL', key)
  if type(heir) ~= 'string' then return end
  call('DEL', following)
  wake(here, key, heir)
end
