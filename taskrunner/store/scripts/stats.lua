-- Reads the figures of one queue, all of its lanes, all of one instant. Changes nothing.
--
-- KEYS  1 workers  2 worker facts  3 paused  then per lane: stream, due, dead, waiting, runs, rates, tallies
-- ARGV  1 group  2 queue
-- Returns {server time in ms, '1' when the queue is paused, facts of the live workers, then per lane a list of
--          entries, pending, scheduled, dead, ms of the oldest waiting entry or 0, waiting per task (flat),
--          runs per task (flat), rates (flat), entries kept, blocked}.
local at, group = now(), ARGV[1]

local function figures(stream, due, dead, waiting, runs, rates, tallies)
  local pending, oldest, after, blocked, counts = 0, 0, '0-0', 0, call('HGETALL', tallies)
  for n = 1, #counts, 2 do
    if string.sub(counts[n], 1, 2) == 'b ' then blocked = blocked + counts[n + 1] end
  end
  local entries = call('XLEN', stream)
  for _, one in ipairs(groups_of(stream)) do
    if one.name == group then pending, after = one.pending, one.last end
  end
  local first = call('XRANGE', stream, '(' .. after, '+', 'COUNT', 1)[1]
  if first then oldest = tonumber(string.match(first[1], '^(%d+)')) end
  return {entries, pending, call('ZCARD', due), call('ZCARD', dead), oldest, call('HGETALL', waiting),
    call('HGETALL', runs), call('HGETALL', rates), tonumber(call('HGET', rates, 'kept') or 0), blocked}
end

local facts = {}
for _, worker in ipairs(call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', at), '+inf')) do
  facts[#facts + 1] = call('HGET', KEYS[2], worker) or '{}'
end
local paused = call('SISMEMBER', KEYS[3], '*') == 1 or call('SISMEMBER', KEYS[3], ARGV[2]) == 1
local reply = {at, paused and '1' or '0', facts}
for k = 4, #KEYS, 7 do reply[#reply + 1] = figures(unpack(KEYS, k, k + 6)) end
return reply
