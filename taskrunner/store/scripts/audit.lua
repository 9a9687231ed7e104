-- Compares what is known of jobs with what is there, a page at a time, and mends what operators, eviction and lost data
-- leave behind: entries that nobody would ever get go back into the queue ("readded"), as do parked jobs whose holder is
-- gone; and jobs whose entry or letter is gone end as failed ("orphaned").
--
-- KEYS  1 janitor  2 live  3 watchers  4 workers
--       then the queues, each up to its dead letters
-- ARGV  1 group  2 caller  3 'turn': a worker, one of the fleet at a time, goes on where the last page ended;
--         'mend': an operator, goes on at ARGV 4; 'look': the same, and changes nothing
--       4 cursor, '' to begin  5 reservation in ms  6 beat period in ms  7 ms between two passes of the whole fleet
--       8 '1': finished entries leave the stream  9 ms that an outcome is kept  10 prefix of the partition's keys: the
--         outcomes and unique keys of orphans, which only letters and live records name, are in the same slot
--       then the names of the queues
-- Returns {cursor, '' at the end; ms until the caller may go on; then triples ('readded' or 'orphaned', queue, id)}.
-- Closes: XGROUP DELCONSUMER and SETID, XDEL, XTRIM, DEL and eviction. Every transition of a job is one script, so what
-- doesn't fit together here is not on its way from one state to the next; and it is mended in the script that saw it.
-- All keys of all queues are named: while a cluster's slot moves, the script is refused, and takes nothing for gone that
-- is still on the other node.
local janitor, live, watchers, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, me, how, rest = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[7])
local at, mend, cursor = now(), how ~= 'look', ARGV[4]
local here = {live = live, watchers = watchers, janitor = janitor, prefix = ARGV[10], ttl = ARGV[9], at = at,
  queues = ARGV[10] .. 'queues', channel = ARGV[10] .. 'wake'}
local MOST, MOST_BYTES = 100, 1000000 -- things looked at, and bytes of letters read, per call
local STRAYS = 172800000 -- ms: a letter of a newer format waits for its worker for a day, and may be put aside again

local bad = mistyped({janitor, 'hash', live, 'hash', watchers, 'hash', workers, 'zset'})
if bad then return bad end

if how == 'turn' then
  insist(workers)
  if guard(janitor, at, tonumber(ARGV[5]), tonumber(ARGV[6])) then
    return {'', math.ceil(call('HGET', janitor, 'grace') - at)}
  end
  local state = call('HMGET', janitor, 'audit', 'auditor', 'audit-next')
  local wait = (tonumber(state[3] or 0) or 0) - at
  expire_runs(here)
  let_next_go(here)
  cursor = state[1] or ''
  -- Who has begun a pass ends it; the others come back when the next one is due, or he is gone.
  if wait > 0 and wait <= rest and (cursor == '' or state[2] ~= me) then return {'', wait} end
end

local queues = {}
for n = 11, #ARGV do queues[ARGV[n]] = {first = 5 + 10 * (n - 11), next = ARGV[n + 1]} end

-- A queue by its name, or nil: one that isn't known here, that is read by others only, or that has foreign data under its
-- keys.
local function find(name)
  local place = queues[name]
  if not place or place.queue ~= nil then return place and place.queue or nil end
  local queue, foreign = queue_at(place.first, 10, name)
  place.queue = not foreign and queue
  if foreign then return nil end
  queue.parked = here.prefix .. 'parked:' .. name
  local groups = groups_of(queue.stream)
  for _, one in ipairs(groups) do
    if one.name == group then queue.last = one.last end
  end
  if not queue.last and #groups > 0 then
    place.queue = false -- its workers have another consumer group, and what they hold can't be seen from here
    return nil
  end
  local figures = call('HMGET', queue.rates, 'kept', 'strays')
  queue.trail = ARGV[8] ~= '1' or (figures[1] and tonumber(figures[1]) ~= 0)
  queue.strays = figures[2] and at - (tonumber(figures[2]) or 0) < STRAYS
  return queue
end

local reply, left, bytes, removed = {'', 0}, MOST, 0, 0
local function tell(what, queue, id)
  left = left - 1
  for _, word in ipairs({what, queue.name, id}) do reply[#reply + 1] = word end
end

local function is_pending(queue, entry)
  local rows = pcall_('XPENDING', queue.stream, group, entry, entry, 1)
  return not rows.err and rows[1] ~= nil
end

-- Whether a queue has nothing at all, and counts that say otherwise: of deleted entries nobody can tell whose they were.
local function is_drained(queue)
  if queue.trail or call('XLEN', queue.stream) > 0 then return false end
  for _, n in ipairs(call('HVALS', queue.waiting)) do
    if n ~= '0' then return not queue.last or call('XPENDING', queue.stream, group)[1] == 0 end
  end
  return false
end

-- An entry that the group has passed and nobody holds: a copy of it comes at the end.
local function readd(queue, entry, fields)
  local job = fields[1] == 't1' and head(fields[2])
  tell('readded', queue, job and job.id or entry)
  if not mend then return end
  pcall_('HINCRBY', janitor, 'readded', 1)
  local new = call('XADD', queue.stream, '*', unpack(fields))
  call('XDEL', queue.stream, entry)
  if job and call('HGET', live, job.id) == 'q ' .. queue.name .. ' ' .. entry then
    call('HSET', live, job.id, 'q ' .. queue.name .. ' ' .. new)
  end
  if not beyond(new, queue.last) then
    -- Somebody has set the group to the future, which would pass over this one too.
    local ms, n = string.match(new, '^(%d+)%-(%d+)$')
    queue.last = n ~= '0' and string.format('%s-%.0f', ms, n - 1) or
      string.format('%.0f-18446744073709551615', ms - 1)
    call('XGROUP', 'SETID', queue.stream, group, queue.last)
  end
end

-- A job that nobody can run any more.
local function lose(queue, id, since, text)
  tell('orphaned', queue, id)
  if not mend then return end
  local why = text and 'its due time was deleted, by somebody or by eviction'
    or 'its entry or letter was deleted, by somebody or by eviction'
  removed = removed + orphan(here, queue, id, since, why, text)
end

-- A live record that says "in the stream".
local function judge_queued(queue, id, entry)
  local rows = pcall_('XRANGE', queue.stream, entry, entry, 'COUNT', 1)
  if rows.err then return end
  local fields = rows[1] and rows[1][2]
  if not fields then
    -- Deleted under a worker that still runs it: then that one will tell the outcome. A letter of a newer format that
    -- was put aside is known by another name until its worker comes.
    if not queue.strays and not is_pending(queue, entry) then
      lose(queue, id, tonumber(string.match(entry, '^%d+')))
    end
    return
  end
  bytes = bytes + #(fields[2] or '')
  if not queue.last or beyond(entry, queue.last) or is_pending(queue, entry) then return end
  local job = fields[1] == 't1' and head(fields[2])
  if not queue.trail or job and job.id == id then
    readd(queue, entry, fields)
  elseif not queue.strays then
    lose(queue, id, tonumber(string.match(entry, '^%d+'))) -- it was read by a worker, who could make nothing of it
  end
end

-- A parked job that could run now goes on; a mere look says so.
local function go_on(queue, id)
  if mend and not let_go(here, id, queue.name) then return end
  if mend then pcall_('HINCRBY', janitor, 'readded', 1) end
  tell('readded', queue, id)
end

-- Takes those out of a lease who are no jobs any more: of those who run, and of those who are first in this row; then the
-- first of it may go on. One look per call: thousands may wait for the same.
local scavenged = {}
local function scavenge(queue, seat, row)
  local name = seat.key .. ' ' .. row
  if scavenged[name] then return end
  scavenged[name] = true
  local ids = call('ZREVRANGEBYSCORE', seat.key, '(0', '-inf', 'LIMIT', 0, MOST)
  local ahead = call('ZRANGEBYSCORE', seat.key, string.format('%.0f', row), string.format('(%.0f', row + ROW), 'LIMIT', 0,
    MOST)
  for n = 1, #ahead do ids[#ids + 1] = ahead[n] end
  left = left - #ids / 10
  local gone, is_gone = #ids > 0 and nobodies(here, ids) or {}, {}
  if #gone == 0 then return end
  for n = 1, #gone do is_gone[gone[n]] = true end
  if mend then
    call('ZREM', seat.key, unpack(gone))
    has_left(seat, #gone)
  end
  for n = 1, #ahead do
    if not is_gone[ahead[n]] then
      if parked_in(call('HGET', live, ahead[n])) then go_on(queue, ahead[n]) end
      return
    end
  end
end

-- A job that waits in line: if nobody runs who could let it go on, it goes on now.
local function judge_lined_up(queue, id, text)
  local _, marks, version = kept(text)
  local needs = mark(marks, 'n')
  if not needs or not string.match(version or '', '^t%d+$') then return false end
  if not mend and call('HEXISTS', janitor, 'row:' .. queue.name) == 0 then return true end -- a look writes nothing
  needs = needs_of(here, needs)
  local row, could_go = row_of(here, queue.name), true
  for _, seat in ipairs(needs.seats) do
    if is_strange(seat) then return true end
    local place = standing(seat, id)
    local ahead = place and call('ZCOUNT', seat.key, string.format('%.0f', row), string.format('(%.0f', place)) or 0
    if ahead >= seat.capacity + WINDOW then return true end -- whoever is lost, it is not this one's turn
    scavenge(queue, seat, row)
    could_go = could_go and ahead + call('ZCOUNT', seat.key, '-inf', '(0') < seat.capacity
  end
  if could_go then go_on(queue, id) end
  return true
end

-- How many letters there should be: one for each due time, and for each parked job.
local function letters_due(queue)
  local parked = pcall_('ZCARD', queue.parked)
  return call('ZCARD', queue.due) + (type(parked) == 'number' and parked or 0)
end

-- Thousands may wait for the same. So of those who have their letters a worker's audit looks closely at the oldest, who
-- come first in their lines, and at a tenth of the others, at another one every two minutes.
local OLDEST, SHARE, SPELL = 200, 10, 120000
local function is_looked_at(queue, id)
  if how ~= 'turn' then return true end
  if not queue.oldest then
    queue.oldest, queue.is_whole = {}, letters_due(queue) == call('HLEN', queue.letters)
    local ids = pcall_('ZRANGE', queue.parked, 0, OLDEST - 1)
    for n = 1, ids.err and 0 or #ids do queue.oldest[ids[n]] = true end
  end
  return not queue.is_whole or queue.oldest[id] or string.byte(id, -1) % SHARE == math.floor(at / SPELL) % SHARE
end

-- A live record that says "parked": in line for a seat; or for the holder of a unique key, which lets it go on when it ends.
local function judge_parked(queue, id)
  local text = call('HGET', queue.letters, id)
  if not text then return lose(queue, id, at) end
  bytes = bytes + #text
  if mend then pcall_('ZADD', queue.parked, 'NX', at, id) end
  local _, marks, version, letter = kept(text)
  local job = version == 't1' and head(letter)
  -- Who stands in line waits for that alone, even if its key has gone to a younger one (debounce).
  local first = needs_of(here, mark(marks, 'n') or '').seats[1]
  local is_heir = not (first and standing(first, id)) and job and job.id == id and type(job.unique) == 'string' and
    pcall_('GET', here.prefix .. 'unique:' .. job.unique) ~= id
  if not is_heir and (job or version ~= 't1') and judge_lined_up(queue, id, text) then return end
  if not is_heir then return lose(queue, id, at, text) end
  local key = here.prefix .. 'unique:' .. job.unique
  local following = next_of(here, key)
  local holder, next = pcall_('GET', key), pcall_('GET', following)
  if type(next) == 'string' and next ~= id and call('HGET', live, next) then
    return lose(queue, id, at, text) -- its place was deleted, and a newer one has it
  end
  if type(holder) == 'string' and call('HEXISTS', live, holder) == 1 then
    if mend and next ~= id then call('SET', following, id) end
    return
  end
  tell('readded', queue, id)
  if not mend then return end
  call('DEL', following)
  if wake(here, key, id) then
    pcall_('HINCRBY', janitor, 'readded', 1)
  else
    removed = removed + orphan(here, queue, id, at, 'its letter is damaged', text)
  end
end

local function judge(id, record)
  local state, name, entry = string.match(record, '^(%S+) (%S+) ?(%S*)$')
  local queue = name and find(name)
  if not queue then return end
  if state == 'q' then
    if string.match(entry, '^%d+%-%d+$') then judge_queued(queue, id, entry) end
  elseif state == 's' or state == 'r' then
    local is_due = call('ZSCORE', queue.due, id)
    if not is_due or call('HEXISTS', queue.letters, id) == 0 then
      lose(queue, id, at, call('HGET', queue.letters, id) or nil)
    end
  elseif state == 'b' and is_looked_at(queue, id) then
    judge_parked(queue, id)
  end
end

-- The pages. Each takes a cursor, '' to begin, and returns the next one, or nil at its end.
local pages = {}

-- Entries between those that are pending, up to the last one that was delivered. Gaps cost nothing to look at; pending
-- entries are not read.
function pages.stream(queue, from)
  if from == '' and mend and is_drained(queue) then call('DEL', queue.waiting) end
  if not queue.last or queue.trail then return nil end
  local start = from == '' and '-' or '(' .. from
  local rows = call('XPENDING', queue.stream, group, start, queue.last, MOST / 2)
  for n = 1, #rows + 1 do
    if n > MOST / 2 then return rows[#rows][1] end
    while true do
      local found = call('XRANGE', queue.stream, start, rows[n] and '(' .. rows[n][1] or queue.last, 'COUNT', 1)[1]
      if not found then break end
      local entry, fields = found[1], found[2]
      start, bytes = '(' .. entry, bytes + #fields[2]
      if #fields <= 200 then readd(queue, entry, fields) end -- ours have two to ten; Lua can't pass on any number
      if left <= 0 or bytes > MOST_BYTES then return entry end
    end
    left = left - 1
    if rows[n] then start = '(' .. rows[n][1] end
  end
end

-- Due times without a letter. Each has one, so they are looked for only when the numbers differ.
function pages.due(queue, from)
  if mend and call('EXISTS', queue.due, queue.letters) == 0 then -- what is counted still was deleted, nobody knows whose
    call('DEL', queue.tallies, queue.parked)
  end
  if from == '' and mend then -- a place in the list of parked jobs whose job is none of them; the oldest come first
    local places = pcall_('ZRANGE', queue.parked, 0, MOST - 1)
    for n = 1, places.err and 0 or #places do
      if string.sub(call('HGET', live, places[n]) or '', 1, 2) ~= 'b ' then call('ZREM', queue.parked, places[n]) end
    end
  end
  if from == '' and letters_due(queue) == call('HLEN', queue.letters) then return nil end
  local page = call('ZSCAN', queue.due, from == '' and '0' or from, 'COUNT', MOST)
  for n = 1, #page[2], 2 do
    left = left - 1
    local id = page[2][n]
    if call('HEXISTS', queue.letters, id) == 0 then
      if string.sub(call('HGET', live, id) or '', 1, 2) ~= 'q ' then
        lose(queue, id, at)
      elseif mend then
        call('ZREM', queue.due, id)
      end
    end
  end
  return page[1] ~= '0' and page[1] or nil
end

-- Letters without a due time: when they should have run, nobody knows. HSCAN reads whole letters, so only a few.
function pages.letters(queue, from)
  if from == '' and call('HLEN', queue.letters) <= letters_due(queue) then return nil end
  local page = call('HSCAN', queue.letters, from == '' and '0' or from, 'COUNT', 10)
  for n = 1, #page[2], 2 do
    local id, text = page[2][n], page[2][n + 1]
    left, bytes = left - 1, bytes + #text
    if not call('ZSCORE', queue.due, id) then
      local state = string.sub(call('HGET', live, id) or '', 1, 2)
      if state == 'b ' then
        -- it waits for another job, and for no time
      elseif state ~= 'q ' then
        lose(queue, id, at, text)
      elseif mend then
        call('HDEL', queue.letters, id)
      end
    end
  end
  return page[1] ~= '0' and page[1] or nil
end

-- Live records. HSCAN gives a small hash whole, whatever it is asked for: the second number is how many of what it gives
-- were looked at before and are still there.
function pages.live(_, from)
  removed = 0
  local scan, skip = string.match(from, '^(%d+),(%d+)$')
  scan, skip = scan or '0', tonumber(skip or 0)
  local page = call('HSCAN', live, scan, 'COUNT', MOST)
  for n = 2 * skip + 1, #page[2], 2 do
    if left <= 0 or bytes > MOST_BYTES then return scan .. ',' .. (n - 1) / 2 - removed end
    left = left - 1
    -- By its record as it is now: a job that was looked at before, in this very script, may have let this one go on.
    local record = call('HGET', live, page[2][n])
    if record then judge(page[2][n], record) end
  end
  return page[1] ~= '0' and page[1] .. ',0' or nil
end

-- stream, due and letters of each queue, then live
local AFTER = {stream = 'due', due = 'letters'}
local FROM = {stream = '^%d+%-%d+$', due = '^%d+$', letters = '^%d+$', live = '^%d+,%d+$'}
local kind, name, from = string.match(cursor, '^(%a+) (%S*) (%S*)$')
if not FROM[kind or ''] or kind ~= 'live' and not queues[name] then kind, name, from = 'stream', ARGV[11] or '', '' end
if not string.match(from, FROM[kind]) then from = '' end
if name == '' then kind = 'live' end
while kind and left > 0 and bytes <= MOST_BYTES do
  local queue = kind ~= 'live' and find(name)
  from = (kind == 'live' or queue) and pages[kind](queue, from) or nil
  left = left - 2
  if not from then
    from = ''
    if kind == 'live' then
      kind = nil
    elseif AFTER[kind] and queue then
      kind = AFTER[kind]
    else
      kind, name = 'stream', queues[name].next or ''
      if name == '' then kind = 'live' end
    end
  end
end
if kind then reply[1] = kind .. ' ' .. name .. ' ' .. from end
if mend then
  let_followers_go(here)
  let_next_go(here)
end
if how == 'turn' then
  call('HSET', janitor, 'audit', reply[1], 'auditor', me, 'audit-next', at + rest)
  if not kind then reply[2] = rest end
end
return reply
