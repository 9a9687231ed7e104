-- Moves jobs of one queue whose due time has come into its stream.
--
-- KEYS  1 due  2 letters  3 stream  4 live  5 waiting  6 rates  7 watchers  8 dead  9 dead letters  10 janitor
-- ARGV  1 most jobs to move  2 queue  3 most bytes of letters to move  4 ms that an outcome is kept
--       5 prefix of the partition's keys: the outcomes and unique keys of lost jobs are in the same slot
-- Returns {how many were moved, ms until the next is due or -1 when none waits, server time in ms,
--          how many of those moved were lost: their letters are gone or damaged}.
-- Closes: the crash in the middle (the entry is added before the due time is removed, in one script), two promoters
-- at the same job; a letter that somebody has damaged or deleted (eviction) and that would hold up all behind it.
local bad = mistyped({KEYS[1], 'zset', KEYS[2], 'hash', KEYS[3], 'stream', KEYS[4], 'hash', KEYS[5], 'hash',
  KEYS[6], 'hash', KEYS[7], 'hash', KEYS[8], 'zset', KEYS[9], 'hash'})
if bad then return bad end
local at = now()
insist(KEYS[1])

-- Whether an entry can be made of it.
local function sound(marks, version)
  local _, words = string.gsub(marks or '', '%S+', '')
  return version and version ~= '' and words % 2 == 0 and words <= 100
end

local here = {live = KEYS[4], watchers = KEYS[7], janitor = KEYS[10], prefix = ARGV[5], ttl = ARGV[4], at = at}
local queue = {name = ARGV[2], due = KEYS[1], letters = KEYS[2], dead = KEYS[8], dead_letters = KEYS[9]}
local ids = call('ZRANGEBYSCORE', KEYS[1], '-inf', at, 'LIMIT', 0, ARGV[1])
local lost = 0
if #ids > 0 then
  local records, added, total, size = call('HMGET', KEYS[4], unpack(ids)), {}, 0, 0
  local all = ids
  ids = {}
  for n = 1, #all do
    -- One by one: two hundred letters of a megabyte each would stop the server for a second.
    local text = call('HGET', KEYS[2], all[n])
    size = size + #(text or '')
    if n > 1 and size > tonumber(ARGV[3]) then break end
    ids[n] = all[n]
    local task, marks, version, letter = kept(text)
    if sound(marks, version) then
      local entry = enter(KEYS[3], marks, version, letter)
      if records[n] then call('HSET', KEYS[4], ids[n], 'q ' .. ARGV[2] .. ' ' .. entry) end
      if task ~= '' then added[task] = (added[task] or 0) + 1 end
      total = total + 1
    else
      lost = lost + 1
      -- A stranger's due time for a job that is queued says nothing of that job.
      if string.sub(records[n] or '', 1, 2) ~= 'q ' then
        orphan(here, queue, ids[n], at, text and 'its letter is damaged' or 'its letter was deleted', text or nil)
      end
    end
  end
  call('ZREM', KEYS[1], unpack(ids))
  call('HDEL', KEYS[2], unpack(ids))
  for task, n in pairs(added) do pcall_('HINCRBY', KEYS[5], task, n) end
  if total > 0 then flow(KEYS[6], 'arrived', total, at) end
end
local head = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#ids, head[2] and math.max(0, math.ceil(tonumber(head[2]) - at)) or -1, at, lost}
