-- Lets jobs that have arrived at a worker run, if all that they need is there: their seats and their permits, all or none.
--
-- KEYS  1 live  2 queues  3 janitor  4-10 the lane, up to its rates
--       then the leases and rates that the items name
-- ARGV  1 group  2 consumer  3 lane  4 prefix of the partition's keys: the lane that a job belongs to, and those of whom it
--         lets go, are in the same slot  5 wake channel  6 ms that an entry may have been pending for and need no renewal
--       then per item: entry id, delivery count, job id, task, home: the lane it belongs to, needs, '1': it has waited for
--         its permit
-- Returns per item the number of its grant, or 0: it is not the caller's any more. Either its token is stale; or it is
-- parked, at its place in line, as a job of another lane was faster; or it waits for a time of its own, at which there
-- will be a permit for it. Asked again it grants again: whoever runs keeps its seats.
-- Closes: two workers that see the same free seat; the job that takes one seat and waits for the other while another job
-- does the opposite; the seat that is taken for a job which another worker has by now; and the seats of a dead worker's
-- job, which are found by whoever runs it next, under a new grant; and the run that begins with a reservation which is
-- nearly over, as its entry has lain in the worker's books, or in nobody's.
local live, queues, janitor = KEYS[1], KEYS[2], KEYS[3]
local bad = mistyped({live, 'hash', queues, 'set', janitor, 'hash'})
if bad then return bad end
local queue, foreign = queue_at(4, 7, ARGV[3])
if foreign then return foreign end
local group, me, at = ARGV[1], ARGV[2], now()
local here = {live = live, queues = queues, janitor = janitor, prefix = ARGV[4], channel = ARGV[5], at = at}
queue.parked = here.prefix .. 'parked:' .. queue.name
local PART, last = 7, #ARGV
local STRANGE = 60000 -- ms until a job comes again that found a stranger's data where its rate should be
insist(queue.due)

-- What this consumer holds, by one range read: what arrives together stands together.
local held, renewed, young = {}, {}, tonumber(ARGV[6])
if last - 6 > 2 * PART then
  local rows = pcall_('XPENDING', queue.stream, group, ARGV[7], ARGV[last - PART + 1], 2 * (last - 6) / PART + 64, me)
  for r = 1, rows.err and 0 or #rows do held[rows[r][1]] = rows[r] end
end
local function is_ours(entry, count)
  local row = held[entry]
  if not row then
    local rows = pcall_('XPENDING', queue.stream, group, entry, entry, 1, me)
    row = not rows.err and rows[1]
  end
  if not row or row[4] ~= tonumber(count) then return false end
  if row[3] > young then renewed[#renewed + 1] = entry end
  return true
end

-- The last time that was given to one who waits for its permit, 0 when nobody does.
local function last_time(key)
  local rows = call('ZREVRANGE', key, 0, 1, 'WITHSCORES')
  return tonumber(rows[1] ~= '' and rows[2] or rows[4] or 0)
end

-- Takes a permit. Or nothing, and returns the time at which the job may come for it: the first that no other one has.
-- A token bucket, in the form of the generic cell rate algorithm (ITU-T I.371): tat, when the bucket would be full again.
-- Who has waited for its time is forgiven half an interval: the one before it may have come later than its own, and tat
-- counts from when it came.
local function take_permit(permit, id, paced)
  local key, interval = permit.key, permit.interval
  if mistyped({key, 'zset'}) then return at + STRANGE end
  local tat, furthest = tonumber(call('ZSCORE', key, '') or 0), at + (permit.burst + 0.5) * interval
  if tat > furthest then -- the clock was set back, or the rate was raised: what was given out is void
    call('DEL', key)
    tat = furthest
  end
  call('ZREM', key, id)
  local earliest, pace = tat - (permit.burst - 1) * interval, last_time(key)
  local granted = paced and at >= earliest - interval / 2 or not paced and at >= earliest and pace <= at
  if granted then
    tat = math.max(tat, at) + interval
  else
    pace = math.max(earliest, pace + interval)
    call('ZREMRANGEBYSCORE', key, '-inf', at) -- whose time has come was lost, or comes for it now
    call('ZADD', key, string.format('%.3f', pace), id)
  end
  call('ZADD', key, string.format('%.3f', tat), '')
  call('PEXPIRE', key, string.format('%.0f', math.max(tat, pace, at) - at + 1000))
  return not granted and math.ceil(pace) or nil
end

-- Takes a job out of the stream again. Returns it as it is kept while it waits, or nil when its entry is gone.
local function withdraw(entry, task, text, more)
  local row = call('XRANGE', queue.stream, entry, entry)[1]
  call('XACK', queue.stream, group, entry)
  if not row then return nil end
  call('XDEL', queue.stream, entry)
  pcall_('HINCRBY', queue.waiting, task, -1)
  local fields, marks = row[2], {}
  for f = 3, #fields - 1, 2 do
    if fields[f] ~= 'h' and fields[f] ~= 'w' and fields[f] ~= 'n' then marks[#marks + 1] = fields[f] .. ' ' .. fields[f + 1] end
  end
  marks[#marks + 1] = 'n ' .. text
  if more ~= '' then marks[#marks + 1] = more end
  return keep(task, table.concat(marks, ' '), fields[1], fields[2])
end

-- Whether others have all the places of a seat.
local function is_taken(seat, id)
  if seat.capacity == 1 then -- then one look at the first in the lease tells it, if not somebody may have to be expired
    local head = pcall_('ZRANGE', seat.key, 0, 0, 'WITHSCORES')
    if head.err then return true end
    if not head[1] or head[1] == id or tonumber(head[2]) > 0 then return false end
  end
  local place = standing(seat, id)
  return not (place and place < 0) and (is_strange(seat) or running(here, seat) >= seat.capacity)
end

local grant
local function admit(entry, id, task, home, text, paced)
  local needs, place = needs_of(here, text), home_of(here, home, queue)
  grant = grant and grant + 1 or tonumber(next_grant(janitor, at))
  if needs.alone and pcall_('ZCARD', needs.seats[1].key) == 1 and
    call('ZADD', needs.seats[1].key, 'XX', 'CH', -grant, id) == 1 then return grant end -- nobody else wants that seat
  for _, seat in ipairs(needs.seats) do
    if is_taken(seat, id) then
      local letter = withdraw(entry, task, text, paced and 'w 1' or '')
      if letter then
        park(place, id, at, letter)
        call('HSET', live, id, 'b ' .. place.name)
        line_up(here, place.name, id, needs, paced)
      end
      return 0
    end
  end
  for _, permit in ipairs(needs.permits) do
    local due = take_permit(permit, id, paced)
    if due then
      local letter = withdraw(entry, task, text, 'w 1')
      leave_seats(here, id, needs)
      if letter then
        later(place, id, due, 's', letter, here.channel)
        call('HSET', live, id, 's ' .. place.name)
      end
      return 0
    end
  end
  for _, seat in ipairs(needs.seats) do call('ZADD', seat.key, -grant, id) end -- a number: %.17g, which is exact
  return grant
end

local reply = {}
for i = 7, last, PART do
  local entry, home = ARGV[i], ARGV[i + 4]
  reply[#reply + 1] = is_ours(entry, ARGV[i + 1]) and
    admit(entry, ARGV[i + 2], ARGV[i + 3], home, ARGV[i + 5], ARGV[i + 6] == '1') or 0
end
if grant then call('HSET', janitor, 'grant', string.format('%.0f', grant)) end
if #renewed > 0 then
  renewed[#renewed + 1] = 'JUSTID' -- those of them that were put aside are not pending any more, and left alone
  call('XCLAIM', queue.stream, group, me, 0, unpack(renewed))
end
let_next_go(here)
return reply
