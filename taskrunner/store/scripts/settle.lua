-- Records what a batch of deliveries of one queue came to. Each is its own: a stale token changes nothing.
--
-- KEYS  1 batch  2 live  3 watchers  4 janitor  5-18 the queue
--       then, in the order in which the items' operations ask for them: record and unique keys; then the leases that the
--       items name
-- ARGV  1 batch number  2 seconds to remember it  3 group  4 consumer  5 how many entries the consumer holds
--       6 '1': finished entries leave the stream  7 queue  8 wake channel
--       9 µs since the consumer's last report in which it never ran out of jobs  10 µs of slots occupied in that time
--       11 jobs finished in that time  12 slots it has
--       13 prefix of the partition's keys: the queues of jobs that wait for a unique key or a seat are in the same slot
--       14 most dead letters of this queue, 15 ms that they stay; 0: any number, for ever
--       then per item: entry id, delivery count, operations, task ('' if unknown), run time in µs, and the operands
--         operations: first the tally: s succeeded, f failed, r retried, - none of these; then any of
--         k  the job ended; keep its outcome      (a key; operands: id, record, ms to keep it)
--         x  the job ended; keep nothing          (operand: id)
--         y  the same; but others may wait for it (operands: id, record)
--         u  free the unique key if it is its     (a key; operand: id)
--         d  put it to the dead letters           (operands: id, task, record)
--         l  run it later                         (operands: id, wait in ms, s or r for a retry, '1' if it has a live
--                                                  record, the letter as it is kept while waiting)
--         a  back into the stream now             (operands: id, '1' if it has a live record, the letter likewise)
--         h  what follows goes to another lane    (operand: lane; the one that the job belongs to by its priority)
--         e  free its seats                       (operands: id, needs)
--         o  free its only seat, of a lock        (operands: digest, how it stands in alone: minus its grant, and its id)
--         b  give up its seats, but stay in front (operands: id, needs)
-- Returns one character per item: 1 recorded, 0 refused because the token is stale; then, behind a blank, how many dead
-- letters the bounds have dropped, if any.
-- Closes: the zombie (XACK alone lets anybody acknowledge anything), the lost reply, the crash between acknowledging
-- and whatever must happen exactly once with it.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local live, watchers, janitor = KEYS[2], KEYS[3], KEYS[4]
local bad = mistyped({live, 'hash', watchers, 'hash', janitor, 'hash'})
if bad then return bad end
local queue, foreign = queue_at(5, 14, ARGV[7])
if foreign then return foreign end

queue.parked = ARGV[13] .. 'parked:' .. queue.name
queue.is_open, named[queue.name] = true, queue -- those who follow are nearly always of the same queue

local group, me, channel, at = ARGV[3], ARGV[4], ARGV[8], now()
local stream = queue.stream
local here = {live = live, watchers = watchers, queues = ARGV[13] .. 'queues', janitor = janitor, prefix = ARGV[13],
  channel = channel, at = at}
local OPERANDS = {k = 3, x = 1, y = 2, u = 1, d = 3, l = 5, a = 3, h = 1, e = 2, b = 2, o = 2}

-- How many operands and keys a string of operations takes; there are few different ones in a batch.
local shapes = {}
local function shape(operations)
  local operands, keys = 0, 0
  for c = 2, #operations do
    local operation = string.sub(operations, c, c)
    operands = operands + OPERANDS[operation]
    if operation == 'k' or operation == 'u' then keys = keys + 1 end
  end
  shapes[operations] = {operands, keys}
  return shapes[operations]
end

-- Where each item starts in ARGV, and after which key its keys come.
local starts, after, n, i, key, last = {}, {}, 0, 16, 18, #ARGV
while i <= last do
  n = n + 1
  starts[n], after[n] = i, key
  local operations = ARGV[i + 2]
  local needs = shapes[operations] or shape(operations)
  i, key = i + 5 + needs[1], key + needs[2]
end

-- The counts of what this consumer holds: by one range read when that is cheaper, else and in doubt one by one.
-- A missing group (an emptied server) means that nothing is held.
local held = {}
if n * 3 >= tonumber(ARGV[5]) then
  local rows = pcall_('XPENDING', stream, group, '-', '+', ARGV[5] + 64, me)
  for r = 1, rows.err and 0 or #rows do held[rows[r][1]] = rows[r][4] end
end

local verdicts, acknowledged, valid = {}, {}, {}
for item = 1, n do
  local id = ARGV[starts[item]]
  local count = held[id]
  if not count then
    local rows = pcall_('XPENDING', stream, group, id, id, 1, me)
    count = not rows.err and rows[1] and rows[1][4]
  end
  held[id] = -1 -- a token is good for one item of a batch
  if count == tonumber(ARGV[starts[item] + 1]) then
    verdicts[item] = '1'
    acknowledged[#acknowledged + 1] = id
    valid[#valid + 1] = item
  else
    verdicts[item] = '0'
  end
end

-- XACK comes first: it is allowed on a server that is out of memory, and so is then all the rest of the script.
if #acknowledged > 0 then
  call('XACK', stream, group, unpack(acknowledged))
  if ARGV[6] == '1' then
    call('XDEL', stream, unpack(acknowledged))
  else
    pcall_('HINCRBY', queue.rates, 'kept', #acknowledged)
  end
else
  insist(queue.due)
end

local ended, hows, records = {}, {}, {} -- ids, how they ended, and what is kept of that
local succeeded, expired, settled, runs = {}, {}, {}, {}
local longest = 0 -- ms that one of these outcomes is kept
local TALLY = {s = 'ok', f = 'failed', r = 'retried'}
local HOW = {s = 's', f = 'f', ['-'] = 'e'}
local done, buried = 0, nil -- lanes that have new dead letters, by name

-- The usual leaving: of a lock that nobody else wants. All of them are looked up, and taken off, at once; only is how the
-- job stands in alone, unless somebody else has come.
local locks, onlys = {}, {}
local function leave_lock(digest, only)
  locks[#locks + 1] = digest
  onlys[#locks] = only
end

local function apply(operations, p, k)
  local place = queue -- where the job goes on
  for c = 2, #operations do
    local operation = string.sub(operations, c, c)
    local id = ARGV[p]
    if operation == 'k' then
      k = k + 1
      call('SET', KEYS[k], ARGV[p + 1], 'PX', ARGV[p + 2])
      ended[#ended + 1] = id
      records[#ended] = ARGV[p + 1]
      longest = math.max(longest, tonumber(ARGV[p + 2]))
      local how = string.sub(operations, 1, 1)
      if how == 's' then succeeded[#succeeded + 1] = id elseif how == '-' then expired[#expired + 1] = id end
    elseif operation == 'x' or operation == 'y' then
      ended[#ended + 1] = id
      hows[#ended] = HOW[string.sub(operations, 1, 1)]
      if operation == 'y' then records[#ended] = ARGV[p + 1] end
    elseif operation == 'u' then
      k = k + 1
      release(here, KEYS[k], id)
    elseif operation == 'd' then
      bury(place, id, ARGV[p + 1], at, ARGV[p + 2])
      buried = buried or {}
      buried[place.name] = place
    elseif operation == 'l' then
      later(place, id, at + tonumber(ARGV[p + 1]), ARGV[p + 2], ARGV[p + 4], channel)
      if ARGV[p + 3] == '1' then call('HSET', live, id, ARGV[p + 2] .. ' ' .. place.name) end
      -- Of a letter of a newer format nobody here knows whose it is: the audit must not miss its entry.
      if string.sub(id, 1, 11) == 'unreadable-' then call('HSET', queue.rates, 'strays', at) end
    elseif operation == 'a' then
      local task, marks, version, letter = kept(ARGV[p + 2])
      if not (mark(marks, 'n') and enter_first(here, place.name, id, task, marks, version, letter)) then
        local entry = enter(stream, marks, version, letter)
        if ARGV[p + 1] == '1' then call('HSET', live, id, 'q ' .. queue.name .. ' ' .. entry) end
        if task ~= '' then settled[task] = (settled[task] or 0) + 1 end
      end
    elseif operation == 'h' then
      place = home_of(here, id, queue)
    elseif operation == 'o' then
      leave_lock(id, ARGV[p + 1])
    elseif operation == 'e' then
      leave(here, id, needs_of(here, ARGV[p + 1]))
    elseif operation == 'b' then
      step_back(here, place.name, id, needs_of(here, ARGV[p + 1]))
    end
    p = p + OPERANDS[operation]
  end
end

local function leave_locks()
  local alone, gone = here.prefix .. 'alone', {}
  local found = pcall_('HMGET', alone, unpack(locks))
  for n = 1, #locks do
    if found[n] == onlys[n] then
      gone[#gone + 1] = locks[n]
    else
      leave(here, string.match(onlys[n], '^%S+ (.*)$'), needs_of(here, locks[n] .. ':1'))
    end
  end
  if #gone > 0 then call('HDEL', alone, unpack(gone)) end
end

for v = 1, #valid do
  local item = valid[v]
  local start = starts[item]
  local operations, task = ARGV[start + 2], ARGV[start + 3]
  if task ~= '' then
    settled[task] = (settled[task] or 0) - 1
    local field = TALLY[string.sub(operations, 1, 1)]
    if field then
      local micros, run = tonumber(ARGV[start + 4]), runs[task]
      if not run then
        run = {ok = 0, failed = 0, retried = 0, n = 0, sum = 0, squares = 0, buckets = {}}
        runs[task] = run
      end
      if field ~= 'retried' then done = done + 1 end
      run[field], run.n, run.sum = run[field] + 1, run.n + 1, run.sum + micros
      run.squares = run.squares + micros * micros
      local bucket = math.floor(2.8853900817779268 * math.log(micros + 0.5)) -- half powers of two; 2 / ln 2
      run.buckets[bucket] = (run.buckets[bucket] or 0) + 1
    end
  end
  local is_locked = operations == 'sok' or operations == 'sox'
  if is_locked then
    leave_lock(ARGV[start + 5], ARGV[start + 6])
    start = start + 2
  end
  if operations == 'sox' then
    ended[#ended + 1] = ARGV[start + 5]
    hows[#ended] = 's'
  elseif is_locked or operations == 'sk' then -- nearly all are one of these
    call('SET', KEYS[after[item] + 1], ARGV[start + 6], 'PX', ARGV[start + 7])
    ended[#ended + 1] = ARGV[start + 5]
    records[#ended] = ARGV[start + 6]
    succeeded[#succeeded + 1] = ARGV[start + 5]
    longest = math.max(longest, tonumber(ARGV[start + 7]))
  elseif #operations > 1 then
    apply(operations, start + 5, after[item])
  end
end
if #ended > 0 then
  call('HDEL', live, unpack(ended))
  if call('EXISTS', watchers) == 1 then
    for n = 1, #ended do
      local channels = call('HGET', watchers, ended[n])
      for one in string.gmatch(channels or '', '%S+') do pcall_('PUBLISH', one, ended[n]) end
    end
    call('HDEL', watchers, unpack(ended))
  end
end
if #succeeded > 0 then recent(queue.succeeded, succeeded, longest) end
if #expired > 0 then recent(queue.expired, expired, longest) end

-- Run times: sums and histogram over as many runs as tell the mean to about a twentieth: 400 times the squared
-- coefficient of variation. A thousand at least, so that few are no accident; ten thousand at most, so that they follow
-- a change.
local FEWEST, MOST = 1000, 10000
local function merge(new, old)
  local variation = old.sum > 0 and old.squares * old.n / old.sum ^ 2 - 1 or 0
  local memory = math.min(math.max(400 * variation, FEWEST), MOST)
  local keep = math.max(0, 1 - new.n / memory) * math.min(1, memory / math.max(old.n, 1))
  local merged = {buckets = {}}
  for _, part in ipairs({'n', 'sum', 'squares'}) do merged[part] = new[part] + old[part] * keep end
  for bucket, n in pairs(old.buckets) do
    if n * keep > 0.01 then merged.buckets[bucket] = n * keep end
  end
  for bucket, n in pairs(new.buckets) do merged.buckets[bucket] = (merged.buckets[bucket] or 0) + n end
  for _, field in pairs(TALLY) do merged[field] = new[field] + old[field] end
  return cjson.encode(merged)
end
for task, new in pairs(runs) do
  local buckets = {}
  for bucket, n in pairs(new.buckets) do buckets[tostring(math.max(bucket, 0))] = n end
  new.sum, new.squares, new.buckets = new.sum / 1000000, new.squares / 1000000000000, buckets
  local text = call('HGET', queue.runs, task)
  -- What another release or a stranger wrote there is no reason to fail: the jobs are acknowledged already.
  local ok, merged = pcall(function() return merge(new, cjson.decode(text)) end)
  call('HSET', queue.runs, task, ok and merged or cjson.encode(new))
end
for task, n in pairs(settled) do
  if n ~= 0 then pcall_('HINCRBY', queue.waiting, task, n) end
end
if done > 0 then flow(queue.rates, 'completed', done, at) end

-- What a worker gets done while jobs wait, for the forecast. Either its slots are the limit: then the slots that are
-- really occupied are of interest; or its event loop is: then the time per job. Means over about five worker-seconds.
local busy, occupied, jobs, slots = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
if busy > 0 then
  local by_slots = occupied >= 0.8 * slots * busy
  local field = by_slots and 'slots' or 'loop'
  local time, amount = string.match(call('HGET', queue.rates, field) or '0 0', '^(%S+) (%S+)$')
  local fade = math.exp(-busy / 5000000)
  local sum = (tonumber(amount) or 0) * fade + (by_slots and occupied or jobs)
  call('HSET', queue.rates, field, string.format('%.10g %.10g', (tonumber(time) or 0) * fade + busy, sum))
end
if #locks > 0 then leave_locks() end
if #ended > 0 then note_ends(here, ended, hows, records) end
let_followers_go(here)
let_next_go(here)
local reply = table.concat(verdicts)
local dropped = 0
for _, lane in pairs(buried or {}) do
  dropped = dropped + drop(lane, janitor, tonumber(ARGV[14]), tonumber(ARGV[15]), at)
end
if dropped > 0 then reply = reply .. ' ' .. dropped end
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
