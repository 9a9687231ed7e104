-- Reads what is known of a job. Changes nothing.
--
-- KEYS  1 record  2 live
-- ARGV  1 id  2 group  3 prefix of the partition's keys: the stream and letters of the job's queue, which only the live
--       record names, are in the same slot
-- Returns {'ended', record}, {'waiting', state, queue, due time in ms, letter} or
-- {'queued', queue, entry id, consumer or '', delivery count, fields}; nil when it is unknown.
local record = call('GET', KEYS[1])
if record then return {'ended', record} end
local place = call('HGET', KEYS[2], ARGV[1])
if not place then return nil end
local state, queue, entry = string.match(place, '^(%S+) (%S+) ?(%S*)$')
if state ~= 'q' then
  local _, _, _, letter = kept(call('HGET', ARGV[3] .. 'letters:' .. queue, ARGV[1]))
  local due = call('ZSCORE', ARGV[3] .. 'due:' .. queue, ARGV[1])
  return {'waiting', state, queue, due or '0', letter or ''}
end
local stream = ARGV[3] .. 'stream:' .. queue
local rows = pcall_('XPENDING', stream, ARGV[2], entry, entry, 1)
local row = not rows.err and rows[1]
local found = call('XRANGE', stream, entry, entry)[1]
return {'queued', queue, entry, row and row[2] or '', row and row[4] or 0, found and found[2] or {}}
