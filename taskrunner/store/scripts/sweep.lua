-- Reads one page of what is pending for a consumer, so that it can find what it holds without knowing: a reply that was
-- lost on the way, or a fetch that was cut off.
--
-- KEYS  1 stream
-- ARGV  1 group  2 consumer  3 start (- or an exclusive id)  4 most entries
-- Returns triples (id, delivery count, fields; no fields when the entry is gone from the stream).
-- Renews their reservation, so that what is about to run out is not taken while the reply is on its way.
local rows = pcall_('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4], ARGV[2])
local reply = {}
for n = 1, rows.err and 0 or #rows do
  local entry = call('XRANGE', KEYS[1], rows[n][1], rows[n][1])[1]
  reply[#reply + 1] = rows[n][1]
  reply[#reply + 1] = rows[n][4]
  reply[#reply + 1] = entry and entry[2] or {}
  if entry then call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, rows[n][1], 'JUSTID') end
end
return reply
