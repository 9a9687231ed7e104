-- Put in front of the scripts in which jobs take, wait for or give up what they need to run: seats and permits.
--
-- A seat is a place among the jobs of one key that may run at once. Its lease is a sorted set: who runs stands there with
-- the negative number of its grant, who is in line with a place. Each lane has a row of its own in it, so that a lane that
-- nobody reads holds up no other one. Of a row only so many stand in the stream as could run now; the others are parked,
-- and whoever leaves the lease lets the next of each row go, into the first lane of their queue, which is read before all
-- others. Places decide who comes to the stream, and in which order; the seat itself is taken at admission.
--
-- A stranger's data under a lease's key stops whoever needs it, and nobody else: no script may fail after its first write.
--
-- here  live, queues, janitor: keys; prefix: of the partition's keys; channel: of the wakes; at: now

-- A row's places begin in its middle, as who comes back stands in front. They are numbered through, over all rows.
local ROW, MIDDLE = 2 ^ 40, 2 ^ 39
local WINDOW = 7 -- places looked at for who may go, besides those that have become free, should one have been missed
local LET_GO, MOVED = 50, 1000000 -- jobs that one script lets go, and bytes of their letters: some milliseconds
local LOOKED = 200 -- runs that one script finds to be over

-- A lock that only one job wants has no lease, but stands with all such locks in one hash (alone: digest -> the score that
-- the job would have there, and its id), where a whole batch is looked up and taken off at once. Whoever looks at a seat in
-- any other way makes a lease of it first.
local function seat_of(here, name, digest, capacity)
  local key, alone = here.prefix .. 'lease:' .. digest, here.prefix .. 'alone'
  local only = pcall_('HGET', alone, digest)
  local score, id = string.match(type(only) == 'string' and only or '', '^(%S+) (.*)$')
  if id and type(pcall_('ZADD', key, score, id)) == 'number' then call('HDEL', alone, digest) end
  return {name = name, key = key, capacity = capacity}
end

-- The seats and permits that a job needs, from the text of its needs.
local NONE = {}
local function needs_of(here, text)
  -- Nearly always it is a single seat, whose digest has 32 characters: no pattern is needed for that.
  local capacity = string.byte(text, 33) == 58 and tonumber(string.sub(text, 34))
  if capacity then
    return {seats = {seat_of(here, text, string.sub(text, 1, 32), capacity)}, permits = NONE}
  end
  local needs = {seats = {}, permits = {}}
  for one in string.gmatch(text, '[^,]+') do
    local digest, most = string.match(one, '^(%x+):(%d+)$')
    if digest then
      needs.seats[#needs.seats + 1] = seat_of(here, one, digest, tonumber(most))
    else
      local rate, interval, burst = string.match(one, '^(%x+)@([%d.]+)@(%d+)$')
      if rate then
        needs.permits[#needs.permits + 1] = {key = here.prefix .. 'rate:' .. rate, interval = tonumber(interval),
          burst = tonumber(burst)}
      end
    end
  end
  return needs
end

local function is_strange(seat) return mistyped({seat.key, 'zset'}) ~= nil end

-- Where a job stands in a lease: a place, minus its grant, or nil.
local function standing(seat, id)
  local score = pcall_('ZSCORE', seat.key, id)
  return type(score) == 'string' and tonumber(score) or nil
end

-- What a mark says, or nil.
local function mark(marks, name)
  return string.match(' ' .. (marks or ''), ' ' .. name .. ' (%S+)')
end

-- Where the row of a lane begins: each lane has a number of its own, for good.
local rows = {}
local function row_of(here, lane)
  if not rows[lane] then
    local number = tonumber(call('HGET', here.janitor, 'row:' .. lane) or nil)
    if not number then
      number = call('HINCRBY', here.janitor, 'rows', 1)
      call('HSET', here.janitor, 'row:' .. lane, number)
    end
    rows[lane] = number * ROW
  end
  return rows[lane]
end

-- A number for a hand-over, greater than all before; it goes on by the clock when the last one was lost with the data.
local function next_grant(janitor, at)
  local last = tonumber(call('HGET', janitor, 'grant') or 0) or 0
  local grant = string.format('%.0f', math.max(last + 1, at * 1000))
  call('HSET', janitor, 'grant', grant)
  return grant
end

-- A place at the end of a row, so that those at the heads of two rows show who came first. Who had its turn, and then
-- waited for a permit, stands in front of all who had none, or it would wait for its turn once more: behind those who come
-- so far to be told their times.
local function last_place(here, row, is_paced)
  return row + (is_paced and MIDDLE / 4 or MIDDLE) + call('HINCRBY', here.janitor, 'places', 1)
end

-- Seats by whose keys somebody may be able to go now, as whoever left them knew them, and how many have left.
local vacated, leavers = {}, {}
local function has_left(seat, n)
  if not leavers[seat.key] then vacated[#vacated + 1] = seat end
  leavers[seat.key] = (leavers[seat.key] or 0) + (n or 1)
end

-- Frees the seats of runs that have outlived their jobs, and whose workers don't renew them any more; and takes up those
-- that a script had no time to see to, which stand there without a run.
local function expire_runs(here)
  local over = pcall_('ZRANGEBYSCORE', here.prefix .. 'outlived', '-inf', here.at, 'LIMIT', 0, LOOKED)
  if over.err or #over == 0 then return end
  for n = 1, #over do
    local name, run = string.match(over[n], '^(%S+) (.*)$')
    local seat = needs_of(here, name or '').seats[1]
    if seat and run == '' then
      has_left(seat, LOOKED)
    elseif seat and pcall_('ZREM', seat.key, run) == 1 then
      has_left(seat)
    end
  end
  call('ZREM', here.prefix .. 'outlived', unpack(over))
end

-- How many run under a seat's key.
local function running(here, seat)
  local n = call('ZCOUNT', seat.key, '-inf', '(0')
  if n < seat.capacity or call('EXISTS', here.prefix .. 'outlived') == 0 then return n end
  expire_runs(here)
  return call('ZCOUNT', seat.key, '-inf', '(0')
end

-- Puts a job into the rows of its seats, one after the other: into the next one when it could run as far as this one
-- goes. Returns whether it could run now by all of them.
local function line_up(here, lane, id, needs, is_paced)
  for n, seat in ipairs(needs.seats) do
    if is_strange(seat) then return false end
    local place, row = standing(seat, id), row_of(here, lane)
    local is_new, is_alone = not place, false
    if is_new then
      is_alone = call('EXISTS', seat.key) == 0
      place = last_place(here, row, is_paced)
      call('ZADD', seat.key, string.format('%.0f', place), id)
    end
    if place > 0 and not is_alone then
      local ahead = call('ZCOUNT', seat.key, string.format('%.0f', row), string.format('(%.0f', place))
      if ahead >= seat.capacity or ahead + running(here, seat) >= seat.capacity then
        -- It holds no place further on, where others could run meanwhile.
        for m = n + 1, #needs.seats do
          local further = needs.seats[m]
          if not is_new and pcall_('ZREM', further.key, id) == 1 then has_left(further) end
        end
        return false
      end
    end
  end
  return true
end

-- Puts a job in line. Returns whether it could run now.
local function join(here, lane, id, text, is_paced)
  if #text == 34 and string.sub(text, 33) == ':1' then
    local digest = string.sub(text, 1, 32)
    if call('EXISTS', here.prefix .. 'lease:' .. digest) == 0 then
      local only = string.format('%.0f ', row_of(here, lane) + MIDDLE) .. id -- before all who come later
      if pcall_('HSETNX', here.prefix .. 'alone', digest, only) == 1 then return true end
    end
  end
  return line_up(here, lane, id, needs_of(here, text), is_paced)
end

-- The first lanes that were entered, looked at once: what stands under their keys may be a stranger's.
local firsts = {}
local function first_of(here, home)
  local name = string.match(home, '^[^/]*') .. '/first'
  local first = firsts[name]
  if not first then
    first = queue_named(here.prefix, name)
    first.has_stream = not mistyped({first.stream, 'stream'})
    first.has_rates = not mistyped({first.rates, 'hash'})
    if first.has_stream and pcall_('SADD', here.queues, name) == 1 then pcall_('PUBLISH', here.channel, 'lane') end
    firsts[name] = first
  end
  return first
end

-- Puts an entry into the first lane of the queue that home belongs to, and says so in the books.
local function enter_first(here, home, id, task, marks, version, letter)
  local first = first_of(here, home)
  local _, words = string.gsub(marks, '%S+', '')
  if not first.has_stream or words % 2 == 1 or words > 100 then return false end
  if not mark(marks, 'h') then marks = marks .. ' h ' .. home end
  call('HSET', here.live, id, 'q ' .. first.name .. ' ' .. enter(first.stream, marks, version, letter))
  pcall_('HINCRBY', first.waiting, task, 1)
  if first.has_rates then flow(first.rates, 'arrived', 1, here.at) end
  return true
end

local gone, moved = 0, 0 -- how many jobs, and bytes of letters, this script has let go
local function is_spent() return gone >= LET_GO or moved >= MOVED end

-- Lets a parked job go, if it could run now. Returns whether it went.
local function let_go(here, id, home)
  local queue = queue_named(here.prefix, home)
  local text = pcall_('HGET', queue.letters, id)
  local task, marks, version, letter = kept(type(text) == 'string' and text or '')
  local needs = needs_of(here, mark(marks, 'n') or '')
  if #needs.seats == 0 or version == '' then return false end -- the audit ends what has lost its letter
  if not line_up(here, home, id, needs, mark(marks, 'w')) then return false end
  if not enter_first(here, home, id, task, marks, version, letter) then return false end
  unpark(queue, id, task)
  gone, moved = gone + 1, moved + #letter -- those only: a promoter that comes for the rest must get further each time
  return true
end

local function parked_in(record) return string.match(record or '', '^b (%S+)$') end

-- Of one row, from where it begins: those who have come so far forward that they could run. False when there may be more
-- than one script sees to.
local function let_row_go(here, seat, row, head, window)
  local room = math.max(1, seat.capacity - running(here, seat)) -- the first may know of more seats than who has left
  local from, to = math.max(0, room - window), room - 1
  -- Not so much as the first has gone: somebody was missed, or there are more seats than there were.
  if from > 0 and parked_in(call('HGET', here.live, head)) then from, to = 0, window - 1 end
  local before = call('ZCOUNT', seat.key, '-inf', string.format('(%.0f', row))
  local size = call('ZCOUNT', seat.key, string.format('%.0f', row), string.format('(%.0f', row + ROW))
  local ids = call('ZRANGE', seat.key, before + from, before + math.min(to, size - 1))
  local records = #ids > 0 and call('HMGET', here.live, unpack(ids)) or {}
  for n = 1, #ids do
    local home = parked_in(records[n])
    if home and is_spent() then return false end
    if home then let_go(here, ids[n], home) end
  end
  return true
end

-- Of every row of a lease, those first whose head has waited longest. Of a lock one goes per queue, as they would all come
-- to the same first lane. False when there may be more than one script sees to.
local function let_rows_go(here, seat, window)
  if is_strange(seat) then return true end
  local heads, row, has_gone = {}, 0, {}
  repeat
    local head = call('ZRANGEBYSCORE', seat.key, string.format('(%.0f', row), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if head[2] then
      row = math.floor(tonumber(head[2]) / ROW) * ROW
      heads[#heads + 1] = {id = head[1], row = row, place = tonumber(head[2]) - row}
      row = row + ROW - 1
    end
  until not head[2]
  table.sort(heads, function(a, b) return a.place < b.place or a.place == b.place and a.row < b.row end)
  for _, head in ipairs(heads) do
    if seat.capacity > 1 then
      if not let_row_go(here, seat, head.row, head.id, window) then return false end
    else
      local home = parked_in(call('HGET', here.live, head.id))
      local queue = string.match(home or '', '^[^/]*')
      if home and not has_gone[queue] then
        if is_spent() then return false end
        has_gone[queue] = let_go(here, head.id, home)
      end
    end
  end
  return true
end

-- Lets the next in line go, of every lane, where somebody has left: the last thing that a script does. What is too much
-- for one script is noted, and a promoter is told, which sees to it.
local function let_next_go(here)
  local n, is_left_over, keys = 1, false, {}
  for k = 1, #vacated do keys[k] = vacated[k].key end
  if #keys > 0 and call('EXISTS', unpack(keys)) == 0 then vacated, leavers = {}, {} end -- nearly always nobody waits there
  while n <= #vacated do
    local seat = vacated[n]
    local window = WINDOW + math.min(leavers[seat.key], LOOKED)
    leavers[seat.key] = nil -- whoever leaves from now on is looked at anew
    if is_spent() or not let_rows_go(here, seat, window) then
      pcall_('ZADD', here.prefix .. 'outlived', here.at, seat.name .. ' ')
      is_left_over = true
    end
    n = n + 1
  end
  vacated = {}
  if is_left_over then pcall_('PUBLISH', here.channel, 'due') end
end

-- The queue that a job goes back to: its home, unless strangers' data stands under the keys of that; then the one that
-- it came from.
local homes = {}
local function home_of(here, name, queue)
  if name == queue.name then return queue end
  if homes[name] == nil then
    local home, kinds = queue_named(here.prefix, name), {}
    for f = 1, 10 do
      kinds[2 * f - 1], kinds[2 * f] = home[FIELDS[f]], TYPES[FIELDS[f]]
    end
    homes[name] = not mistyped(kinds) and home
  end
  return homes[name] or queue
end

-- Takes a job out of its leases, wherever it stands in them.
local function leave_seats(here, id, needs)
  for _, seat in ipairs(needs.seats) do
    if pcall_('ZREM', seat.key, id) == 1 then has_left(seat) end
  end
end

-- The same, and the permit that it waits for is another's.
local function leave(here, id, needs)
  leave_seats(here, id, needs)
  for _, permit in ipairs(needs.permits) do pcall_('ZREM', permit.key, id) end
end

-- Those of some who stand in a lease who are no jobs any more. Of runs that have outlived theirs: those that nobody lists, or
-- which have been over for a minute; in between they expire by themselves.
local function nobodies(here, ids)
  local records, gone, known = call('HMGET', here.live, unpack(ids)), {}, nil
  for n = 1, #ids do
    local is_run = string.find(ids[n], '\n', 1, true)
    if not records[n] and is_run and not known then
      known = {}
      local runs = pcall_('ZRANGEBYSCORE', here.prefix .. 'outlived', here.at - 60000, '+inf', 'LIMIT', 0, 5 * LOOKED)
      if runs.err or #runs == 5 * LOOKED then return {} end -- nobody can tell
      for r = 1, #runs do known[string.match(runs[r], '^%S+ (.*)$') or ''] = true end
    end
    if not records[n] and not (is_run and known[ids[n]]) then gone[#gone + 1] = ids[n] end
  end
  return gone
end

-- A job that ends while its run goes on: the run keeps the seats, until the worker frees them or they expire.
local function outlive(here, id, needs, ms)
  for _, seat in ipairs(needs.seats) do
    local grant = standing(seat, id)
    if grant and grant < 0 then
      local run = string.format('%s\n%.0f', id, -grant) -- no id has a newline
      call('ZREM', seat.key, id)
      call('ZADD', seat.key, string.format('%.0f', grant), run)
      pcall_('ZADD', here.prefix .. 'outlived', string.format('%.0f', here.at + ms), seat.name .. ' ' .. run)
    end
  end
end

-- A job that goes back into the stream without having run to its end: it stands in front of its rows, as it was there
-- before all others.
local function step_back(here, lane, id, needs)
  for _, seat in ipairs(needs.seats) do
    local place = standing(seat, id)
    if place and place < 0 then
      local row = row_of(here, lane)
      local head = call('ZRANGEBYSCORE', seat.key, string.format('%.0f', row), string.format('%.0f', row + ROW - 1),
        'WITHSCORES', 'LIMIT', 0, 1)
      call('ZADD', seat.key, string.format('%.0f', math.min(head[2] and tonumber(head[2]) - 1 or math.huge, row + MIDDLE)),
        id)
      has_left(seat)
    end
  end
end
