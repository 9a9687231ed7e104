-- Moves jobs of one queue whose due time has come into its stream.
--
-- KEYS  1 due  2 letters  3 stream  4 live  5 waiting  6 rates
-- ARGV  1 most jobs to move  2 queue  3 most bytes of letters to move
-- Returns {how many were moved, ms until the next is due or -1 when none waits, server time in ms}.
-- Closes: the crash in the middle (the entry is added before the due time is removed, in one script), two promoters
-- at the same job.
local bad = mistyped({KEYS[1], 'zset', KEYS[2], 'hash', KEYS[3], 'stream', KEYS[4], 'hash', KEYS[5], 'hash',
  KEYS[6], 'hash'})
if bad then return bad end
local at = now()
insist(KEYS[1])
local ids = call('ZRANGEBYSCORE', KEYS[1], '-inf', at, 'LIMIT', 0, ARGV[1])
if #ids > 0 then
  local records, added, total, size = call('HMGET', KEYS[4], unpack(ids)), {}, 0, 0
  local all = ids
  ids = {}
  for n = 1, #all do
    -- One by one: two hundred letters of a megabyte each would stop the server for a second.
    local task, marks, version, letter = kept(call('HGET', KEYS[2], all[n]) or '')
    size = size + #(letter or '')
    if n > 1 and size > tonumber(ARGV[3]) then break end
    ids[n] = all[n]
    if letter then
      local entry = enter(KEYS[3], marks, version, letter)
      if records[n] then call('HSET', KEYS[4], ids[n], 'q ' .. ARGV[2] .. ' ' .. entry) end
      if task ~= '' then added[task] = (added[task] or 0) + 1 end
      total = total + 1
    end
  end
  call('ZREM', KEYS[1], unpack(ids))
  call('HDEL', KEYS[2], unpack(ids))
  for task, n in pairs(added) do pcall_('HINCRBY', KEYS[5], task, n) end
  if total > 0 then flow(KEYS[6], 'arrived', total, at) end
end
local head = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#ids, head[2] and math.max(0, math.ceil(tonumber(head[2]) - at)) or -1, at}
