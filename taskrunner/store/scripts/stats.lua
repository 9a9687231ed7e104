-- Reads the figures of one queue, all of one instant. Changes nothing.
--
-- KEYS  1 stream  2 due  3 dead  4 waiting  5 runs  6 rates  7 workers  8 worker facts
-- ARGV  1 group
-- Returns {server time in ms, entries, pending, scheduled, dead, ms of the oldest waiting entry or 0,
--          waiting per task (flat), runs per task (flat), rates (flat), facts of the live workers, entries kept}.
local at, group = now(), ARGV[1]
local entries, pending, oldest, after = call('XLEN', KEYS[1]), 0, 0, '0-0'
local groups = pcall_('XINFO', 'GROUPS', KEYS[1])
for n = 1, groups.err and 0 or #groups do
  local row = {}
  for f = 1, #groups[n], 2 do row[groups[n][f]] = groups[n][f + 1] end
  if row.name == group then pending, after = row.pending, row['last-delivered-id'] end
end
local first = call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 1)[1]
if first then oldest = tonumber(string.match(first[1], '^(%d+)')) end
local facts = {}
for _, worker in ipairs(call('ZRANGEBYSCORE', KEYS[7], '(' .. string.format('%.0f', at), '+inf')) do
  facts[#facts + 1] = call('HGET', KEYS[8], worker) or '{}'
end
return {at, entries, pending, call('ZCARD', KEYS[2]), call('ZCARD', KEYS[3]), oldest, call('HGETALL', KEYS[4]),
  call('HGETALL', KEYS[5]), call('HGETALL', KEYS[6]), facts, tonumber(call('HGET', KEYS[6], 'kept') or 0)}
