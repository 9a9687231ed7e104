-- A worker's heartbeat: renews the reservation of what it holds, and its own entry in the registry.
--
-- KEYS  1 workers  2 worker facts  3 janitor  then the streams
-- ARGV  1 group  2 consumer  3 ms that the worker counts as alive  4 facts about it (JSON)
--       5 reservation in ms  6 beat period in ms
--       then per stream: how many pairs, and the pairs (entry id, delivery count)
-- Returns {server time in ms, then pairs (index of the stream from 0, id) that the worker doesn't hold any more}.
-- Closes: a bare XCLAIM would steal back what another worker has taken meanwhile; here only what is still ours, with
-- the same delivery count, is renewed.
local at = now()
insist(KEYS[1])
guard(KEYS[3], at, tonumber(ARGV[5]), tonumber(ARGV[6]))
call('ZADD', KEYS[1], at + ARGV[3], ARGV[2])
call('HSET', KEYS[2], ARGV[2], ARGV[4])
local group, me = ARGV[1], ARGV[2]
local reply, i = {at}, 7
for s = 4, #KEYS do
  local pairs_, last, renewed = tonumber(ARGV[i]), i + 2 * tonumber(ARGV[i]), {}
  i = i + 1
  local held = {}
  if pairs_ > 2 then
    local rows = pcall_('XPENDING', KEYS[s], group, '-', '+', 2 * pairs_ + 64, me)
    for n = 1, rows.err and 0 or #rows do held[rows[n][1]] = rows[n][4] end
  end
  while i <= last do
    local id, count = ARGV[i], held[ARGV[i]]
    if not count then
      local row = pcall_('XPENDING', KEYS[s], group, id, id, 1, me)
      count = not row.err and row[1] and row[1][4]
    end
    if count == tonumber(ARGV[i + 1]) then
      renewed[#renewed + 1] = id
    else
      reply[#reply + 1] = s - 4
      reply[#reply + 1] = id
    end
    i = i + 2
  end
  if #renewed > 0 then
    renewed[#renewed + 1] = 'JUSTID'
    call('XCLAIM', KEYS[s], group, me, 0, unpack(renewed))
  end
end
return reply
