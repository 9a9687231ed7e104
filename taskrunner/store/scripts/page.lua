-- A page of the dead letters of one queue, by the instant at which they failed, and by id where that is the same.
-- Changes nothing.
--
-- KEYS  1 dead  2 dead-letters  3 dead-tasks
-- ARGV  1 'newest' or 'oldest' first  2, 3 instant and id of the one after which the page begins, '' for the first page
--       4 most of them  5 the task that they must be of, '' for any
--       6 most bytes of records, unless one alone has more; 0: no records
-- Returns three per dead letter: id, instant in ms, record ('' if none was asked for, or it is gone).
-- Closes: a page by rank, which would skip some or show some twice when others come and go.
local bad = mistyped({KEYS[1], 'zset', KEYS[2], 'hash', KEYS[3], 'zset'})
if bad then return bad end
local dead, letters, tasks = KEYS[1], KEYS[2], KEYS[3]
local newest, instant, after, most = ARGV[1] == 'newest', ARGV[2], ARGV[3], tonumber(ARGV[4])
local task, room = ARGV[5], tonumber(ARGV[6])

-- Whether an id comes before another one as the server sorts them; < sorts by the locale of the server.
local function precedes(one, other)
  for n = 1, math.min(#one, #other) do
    local a, b = string.byte(one, n), string.byte(other, n)
    if a ~= b then return a < b end
  end
  return #one < #other
end

-- The rank of the first one after a place. Of one instant there may be thousands: those of an audit, of a long outage.
local function rank_after()
  local range = newest and 'ZREVRANGE' or 'ZRANGE'
  local passed = newest and call('ZCOUNT', dead, '(' .. instant, '+inf') or call('ZCOUNT', dead, '-inf', '(' .. instant)
  local low, high = passed, passed + call('ZCOUNT', dead, instant, instant)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local id = call(range, dead, middle, middle)[1]
    local beyond = newest and precedes(id, after) or not newest and precedes(after, id)
    if beyond then high = middle else low = middle + 1 end
  end
  return low
end

local found = {} -- id, instant, and so on
if task == '' then
  local first = instant == '' and 0 or rank_after()
  if newest then
    found = call('ZREVRANGE', dead, first, first + most - 1, 'WITHSCORES')
  else
    found = call('ZRANGE', dead, first, first + most - 1, 'WITHSCORES')
  end
else
  -- Members are TASK, instant in 15 digits, ID, with line feeds between them: \11 is what follows that.
  local first, last, members = '[' .. task .. '\n', '(' .. task .. '\11'
  local place = instant ~= '' and string.format('(%s\n%015.0f\n%s', task, tonumber(instant), after)
  if newest then
    members = call('ZREVRANGEBYLEX', tasks, place or last, first, 'LIMIT', 0, most)
  else
    members = call('ZRANGEBYLEX', tasks, place or first, last, 'LIMIT', 0, most)
  end
  for n = 1, #members do
    found[2 * n - 1] = string.sub(members[n], #task + 18)
    found[2 * n] = string.format('%.0f', tonumber(string.sub(members[n], #task + 2, #task + 16)) or 0)
  end
end

local reply = {}
for n = 1, #found, 2 do
  local record = ''
  if room > 0 then
    local size = call('HSTRLEN', letters, found[n])
    if n > 1 and size > room then break end
    room = math.max(room - size, 1)
    record = call('HGET', letters, found[n]) or ''
  end
  reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = found[n], found[n + 1], record
end
return reply
