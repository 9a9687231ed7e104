-- Takes over entries of one stream whose worker has been silent for longer than the reservation, and removes the
-- consumers of workers that are gone.
--
-- KEYS  1 janitor  2 stream  3 workers  4 worker facts
-- ARGV  1 group  2 consumer  3 reservation in ms  4 beat period in ms  5 most entries  6 queue
--       7 ms between two passes of the whole fleet  8 the delivery count of a job's last run
--       9 '1': the caller has a job with that count in hand  10 reservations that an entry must have been silent for
-- Returns {'1' when there is more to look at now, then triples (id, delivery count, fields)}. What is returned belongs
-- to the caller, with a delivery count that no earlier token has.
-- Closes: two workers claiming at once; a mass claim after an outage (guard); dead entries hidden behind living ones
-- (the cursor is kept: every pass goes on where the last ended); the consumer deleted with entries still pending;
-- a job that takes others along when it kills its workers: a worker has one job at its last run in hand, not two, so
-- what dies then dies of itself.
local janitor, stream, group, me, queue = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[6]
local at, reservation = now(), tonumber(ARGV[3])
insist(KEYS[3])
if guard(janitor, at, reservation, tonumber(ARGV[4])) then return {'0'} end
-- Who looks for more than one reservation of silence takes no turn from those who would take more.
local times = tonumber(ARGV[10])
local look = times > 1 and queue .. ':' .. times or queue
local state = call('HMGET', janitor, 'cursor:' .. look, 'next:' .. look, 'shortest:' .. queue)
local cursor, turn, shortest = state[1] or '0-0', tonumber(state[2] or 0), tonumber(state[3])
if at < turn and turn - at <= tonumber(ARGV[7]) then return {'0'} end

-- A fleet may have several reservations, for the time of a deploy: what a worker with a longer one holds must not be
-- taken at ours. The registry shows it: a worker counts as alive for twice its own.
local newest = call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if newest then reservation = math.max(reservation, math.floor((tonumber(newest) - at) / 2)) end

-- Entries of tasks with a reservation of their own (field r) must not be taken at the runner's age, nor left to it:
-- XAUTOCLAIM can't tell them apart, so a queue that has such tasks is paged by XPENDING and judged one by one.
local ids, most = {}, tonumber(ARGV[5])
if shortest then
  local from = cursor == '0-0' and '-' or '(' .. cursor
  local rows = call('XPENDING', stream, group, 'IDLE', math.min(shortest, reservation) * times, from, '+', 100)
  local n = 0
  while n < #rows and #ids < most do
    n = n + 1
    local entry = call('XRANGE', stream, rows[n][1], rows[n][1])[1]
    local own = entry and entry[2][3] == 'r' and tonumber(entry[2][4]) or reservation -- marks follow the letter
    if rows[n][3] >= own * times then ids[#ids + 1] = rows[n][1] end
    cursor = rows[n][1]
  end
  if n == #rows and n < 100 then cursor = '0-0' end
else
  -- One XAUTOCLAIM looks at ten entries for each that it may take: here until there is one, so that a worker with little
  -- room needs no round trip per ten; but at most at 2,000, which is about a millisecond.
  local looked = 0
  repeat
    local page = call('XAUTOCLAIM', stream, group, me, reservation * times, cursor, 'COUNT', most, 'JUSTID')
    cursor, ids, looked = page[1], page[2], looked + 10 * most
  until #ids > 0 or cursor == '0-0' or looked >= 2000
end

local reply, last, busy = {cursor == '0-0' and '0' or '1'}, tonumber(ARGV[8]), ARGV[9] == '1'
local function take(id, count)
  -- JUSTID left the delivery count alone; XCLAIM raises it, which is what makes the old token stale.
  local entry = call('XCLAIM', stream, group, me, 0, id)[1]
  if entry and entry[2] then
    reply[#reply + 1] = id
    reply[#reply + 1] = count
    reply[#reply + 1] = entry[2]
    busy = busy or count == last
  else
    call('XACK', stream, group, id) -- pending, but gone from the stream: 6.2 would offer it for ever
  end
end
for n = 1, #ids do
  local count = call('XPENDING', stream, group, ids[n], ids[n], 1)[1][4] + 1
  if not busy or count ~= last then
    take(ids[n], count)
  elseif not shortest then
    -- XAUTOCLAIM has taken it already: put where whoever comes next takes it, and not under the caller's name, whose
    -- sweep after a failure would find it there and run it with a count that was used.
    call('XCLAIM', stream, group, 'parked', 0, ids[n], 'IDLE', reservation * times, 'JUSTID')
  end
end

if cursor == '0-0' then
  call('HSET', janitor, 'next:' .. look, at + ARGV[7])
  local silent = call('ZRANGEBYSCORE', KEYS[3], '-inf', at - 2 * reservation, 'LIMIT', 0, 100)
  for n = 1, #silent do
    call('ZREM', KEYS[3], silent[n])
    call('HDEL', KEYS[4], silent[n])
  end
  for _, row in ipairs(call('XINFO', 'CONSUMERS', stream, group)) do
    local consumer, pending = row[2], row[4]
    if pending == 0 and consumer ~= me and not call('ZSCORE', KEYS[3], consumer) then
      call('XGROUP', 'DELCONSUMER', stream, group, consumer)
    end
  end
end
call('HSET', janitor, 'cursor:' .. look, cursor)
return reply
