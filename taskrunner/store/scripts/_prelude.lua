-- Put in front of every script: the words that they share.
local call, pcall_ = redis.call, redis.pcall
local FLOW_WINDOW = 10000 -- ms; rates are exponentially weighted over about this long

-- Server time in milliseconds: the only clock that any deadline is measured with.
local function now()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The complaint about the first key whose type isn't what we keep there, or nil. Asked before the first write, because
-- a script that fails half-way keeps what it wrote.
local function mistyped(kinds)
  for i = 1, #kinds, 2 do
    local kind = call('TYPE', kinds[i]).ok
    if kind ~= 'none' and kind ~= kinds[i + 1] then
      return redis.error_reply('WRONGTYPE ' .. kinds[i] .. ' holds a ' .. kind .. ', not a ' .. kinds[i + 1])
    end
  end
end

-- A batch that was sent again because its reply was lost gets that reply, and changes nothing a second time. One that
-- comes after its successor was stuck on a dead connection; its sender has long had its answer.
-- Being remembered anew is also a write: WAIT and WAITAOF speak of the last one of their connection, and on a connection
-- without any they confirm what was written on another one before anybody has it.
local function replay(key, number, seconds)
  local last = call('GET', key)
  if not last then return nil end
  local cut = string.find(last, ' ', 1, true)
  local known = tonumber(string.sub(last, 1, cut - 1))
  if known == tonumber(number) then
    call('PEXPIRE', key, seconds * 1000)
    return string.sub(last, cut + 1)
  end
  if known > tonumber(number) then return redis.error_reply('STALE batch ' .. number .. ' came after ' .. known) end
end

-- A server that is out of memory refuses a script its first write, unless that can only free some; after it, it refuses
-- nothing. So what keeps and drains jobs goes on, and only new ones are refused.
local function insist(zset) call('ZREM', zset, '') end

-- Adds n events to an exponentially decaying sum "value last since"; value / FLOW_WINDOW is the rate per ms. Like all
-- figures it begins anew where it finds something else: a script that has moved jobs must not fail for a statistic.
local function flow(key, field, n, at)
  local value, since = 0, at
  local text = call('HGET', key, field)
  if text then
    local old, last, first = string.match(text, '^(%S+) (%S+) (%S+)$')
    old, last, first = tonumber(old), tonumber(last), tonumber(first)
    local gap = last and math.max(at - last, 0)
    if old and first and gap and gap < 6 * FLOW_WINDOW then
      value, since = old * math.exp(-gap / FLOW_WINDOW), first
    end
  end
  call('HSET', key, field, string.format('%.10g %.0f %.0f', value + n, at, since))
end

-- True while nothing may be called expired. Idle time is wall-clock time: after an outage, a pause or a clock step all
-- that runs looks abandoned at once. Such a gap shows as a silence of two of the caller's beats (each worker of the fleet
-- ends it), and then everybody gets the time to beat, those with a longer period too, before anybody claims.
local function guard(janitor, at, reservation, beat)
  local state = call('HMGET', janitor, 'last', 'grace')
  local last, grace = tonumber(state[1]), tonumber(state[2] or 0)
  if not last or at - last > 2 * beat or at < last then
    grace = at + math.max(2 * beat, reservation / 2) + 1000
  end
  call('HSET', janitor, 'last', at, 'grace', grace)
  return at < grace
end

-- Whether one entry id comes after another one.
local function beyond(one, other)
  local ms, n = string.match(one, '^(%d+)%-(%d+)$')
  local other_ms, other_n = string.match(other, '^(%d+)%-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(n) > tonumber(other_n)
end

-- The consumer groups of a stream: name, how many entries are pending, and the last that was delivered. None where there
-- is no stream.
local function groups_of(stream)
  local found, groups = {}, pcall_('XINFO', 'GROUPS', stream)
  for n = 1, groups.err and 0 or #groups do
    local row = {}
    for f = 1, #groups[n], 2 do row[groups[n][f]] = groups[n][f + 1] end
    found[n] = {name = row.name, pending = row.pending, last = row['last-delivered-id']}
  end
  return found
end

-- The keys of a queue. Every script that works on one takes as many of them as it needs, in this order and without a gap.
local FIELDS = {'stream', 'due', 'letters', 'retrying', 'tallies', 'waiting', 'rates', 'dead', 'dead_letters',
  'dead_tasks', 'runs', 'succeeded', 'cancelled', 'expired', 'parked'}
local TYPES = {stream = 'stream', due = 'zset', letters = 'hash', retrying = 'zset', tallies = 'hash',
  waiting = 'hash', rates = 'hash', dead = 'zset', dead_letters = 'hash', dead_tasks = 'zset', runs = 'hash',
  succeeded = 'list', cancelled = 'list', expired = 'list', parked = 'zset'}

-- The queue whose n keys begin at KEYS[first], and the complaint about the first of them that is not ours, or nil.
local function queue_at(first, n, name)
  local queue = {name = name}
  for f = 1, n do
    local field, key = FIELDS[f], KEYS[first + f - 1]
    queue[field] = key
    local kind = call('TYPE', key).ok
    if kind ~= 'none' and kind ~= TYPES[field] then
      return queue, redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. kind .. ', not a ' .. TYPES[field])
    end
  end
  return queue
end

-- A queue that only a live record names. Its keys are in the slot of all the others.
local named = {}
local function queue_named(prefix, name)
  local queue = named[name]
  if queue then return queue end
  queue = {name = name}
  for _, field in ipairs(FIELDS) do queue[field] = prefix .. string.gsub(field, '_', '-') .. ':' .. name end
  named[name] = queue
  return queue
end

-- Counts jobs that are not in the stream: s TASK wait for a time, r TASK for a retry, b TASK for another job.
local function tally(queue, state, task, n)
  if task == '' then return end
  local count = pcall_('HINCRBY', queue.tallies, state .. ' ' .. task, n)
  if type(count) == 'number' and count <= 0 then call('HDEL', queue.tallies, state .. ' ' .. task) end
end

-- Puts a job aside until a due time; state s or r. Tells sleeping promoters when it became the earliest. By pcall, like
-- every notice: it comes after writes, and who may not publish must not find the script failed and send it again.
local function later(queue, id, at, state, letter, channel)
  local head = call('ZRANGE', queue.due, 0, 0, 'WITHSCORES')
  if call('ZADD', queue.due, at, id) == 1 then tally(queue, state, string.match(letter, '^[^\n]*'), 1) end
  call('HSET', queue.letters, id, letter)
  if state == 'r' then call('ZADD', queue.retrying, at, id) end
  if not head[2] or at < tonumber(head[2]) then pcall_('PUBLISH', channel, 'due') end
end

-- Takes jobs out of those that wait for their time; tasks[n] is that of ids[n], '' when nobody knows.
local function unwait(queue, ids, tasks)
  if #ids == 0 then return end
  local retrying, left = call('EXISTS', queue.retrying) == 1, {}
  for n = 1, #ids do
    local state = retrying and call('ZREM', queue.retrying, ids[n]) == 1 and 'r' or 's'
    local field = state .. ' ' .. tasks[n]
    -- An operator may have deleted the one or the other; while one is there, it was counted.
    if call('ZREM', queue.due, ids[n]) == 1 or call('HEXISTS', queue.letters, ids[n]) == 1 then
      left[field] = (left[field] or 0) - 1
    end
  end
  call('HDEL', queue.letters, unpack(ids))
  if call('EXISTS', queue.due, queue.letters) == 0 then
    call('DEL', queue.tallies, queue.retrying) -- of lost letters nobody could tell whose they were
    return
  end
  for field, n in pairs(left) do tally(queue, string.sub(field, 1, 1), string.sub(field, 3), n) end
end

-- Puts a job aside until another one has ended, which lets it go on (release).
local function park(queue, id, at, letter)
  call('HSET', queue.letters, id, letter)
  pcall_('ZADD', queue.parked, at, id)
  tally(queue, 'b', string.match(letter, '^[^\n]*'), 1)
end

local function unpark(queue, id, task)
  pcall_('HDEL', queue.letters, id)
  pcall_('ZREM', queue.parked, id)
  tally(queue, 'b', task, -1)
end

-- A letter that waits stands with what its entry will need: task, marks, version of the format, letter.
local function keep(task, marks, version, letter)
  return task .. '\n' .. marks .. '\n' .. version .. '\n' .. letter
end

local function kept(text)
  return string.match(text or '', '^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
end

-- Adds an entry. Marks are further fields, which scripts can see beside the sealed letter: r, a reservation of the
-- task's own in ms.
local function enter(stream, marks, version, letter)
  if marks == '' then return call('XADD', stream, '*', version, letter) end
  local fields = {version, letter}
  for mark in string.gmatch(marks, '%S+') do fields[#fields + 1] = mark end
  return call('XADD', stream, '*', unpack(fields))
end

-- Ids of ended jobs, newest first: as many as somebody will look through, for as long as their outcomes are kept.
local RECENT = 1000
local function recent(list, ids, ttl)
  if call('TYPE', list).ok == 'list' or call('EXISTS', list) == 0 then
    call('LPUSH', list, unpack(ids))
    call('LTRIM', list, 0, RECENT - 1)
    if call('PTTL', list) < tonumber(ttl) then call('PEXPIRE', list, ttl) end
  end
end
