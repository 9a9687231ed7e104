-- Takes new entries of several streams for one consumer: of each what is its share, and what the shares leave over from
-- the first streams that have more.
--
-- KEYS  the streams, the most urgent first
-- ARGV  1 group  2 consumer  3 most entries of all together  then one number per stream: its share
--       then, if any stream goes before others, one text per stream: the numbers of the streams, separated by blanks, of
--         which each gives up one of its share, in this order, for each entry that this one brings
-- Returns one list of entries (id, fields) per stream, in the order of KEYS. A stream that can't be read is as one that
-- has nothing, and its error is the reply when nothing else was there.
-- Closes: the reply that would be lost with some streams read and others refused; and the round trips that it took to
-- ask one stream after the other, in which jobs of the urgent ones go on waiting.
local group, me, room, reply, problem = ARGV[1], ARGV[2], tonumber(ARGV[3]), {}, nil
for s = 1, #KEYS do reply[s] = {} end

-- Reads up to so many entries of a stream. True when there may be more.
local function read(s, count)
  count = math.min(count, room)
  if count < 1 then return true end
  local found = pcall_('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', KEYS[s], '>')
  if found and found.err then
    problem = problem or found
    return false
  end
  local rows = found and found[1][2] or {}
  for n = 1, #rows do reply[s][#reply[s] + 1] = rows[n] end
  room = room - #rows
  return #rows == count
end

local more, less = {}, {}
for s = 1, #KEYS do
  more[s] = read(s, tonumber(ARGV[3 + s]) - (less[s] or 0))
  local n = #reply[s]
  for other in string.gmatch(n > 0 and ARGV[3 + #KEYS + s] or '', '%d+') do
    if n == 0 then break end
    less[tonumber(other)] = (less[tonumber(other)] or 0) + 1
    n = n - 1
  end
end
for s = 1, #KEYS do
  if more[s] and room > 0 then read(s, room) end
end
if problem and room == tonumber(ARGV[3]) then return problem end
return reply
