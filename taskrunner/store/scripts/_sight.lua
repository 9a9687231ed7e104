-- Put in front of the scripts that show one job to people.
--
-- prefix  of the partition's keys: the stream and letters of the job's queue, which only the live record names, are in
--         the same slot
-- Returns {'ended', record}, {'waiting', state, queue, due time in ms, letter} or
-- {'queued', queue, entry id, consumer or '', delivery count, fields}; nil when it is unknown.
local function sight(record_key, live, id, group, prefix)
  local record = call('GET', record_key)
  if record then return {'ended', record} end
  local place = call('HGET', live, id)
  if not place then return nil end
  local state, queue, entry = string.match(place, '^(%S+) (%S+) ?(%S*)$')
  if state ~= 'q' then
    local _, _, _, letter = kept(call('HGET', prefix .. 'letters:' .. queue, id))
    local due = call('ZSCORE', prefix .. 'due:' .. queue, id)
    return {'waiting', state, queue, due or '0', letter or ''}
  end
  local stream = prefix .. 'stream:' .. queue
  local rows = pcall_('XPENDING', stream, group, entry, entry, 1)
  local row = not rows.err and rows[1]
  local found = call('XRANGE', stream, entry, entry)[1]
  return {'queued', queue, entry, row and row[2] or '', row and row[4] or 0, found and found[2] or {}}
end
