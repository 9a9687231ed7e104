-- Ends the jobs of one queue that wait, a page at a time: those that wait for their time, those that wait for another
-- job, and those in the stream that no worker has taken. The others are left alone.
--
-- KEYS  1 batch  2 live  3 watchers  then the queue
-- ARGV  1 batch number  2 seconds to remember it  3 queue  4 wake channel
--       5 prefix of the partition's keys: the outcomes, unique keys and leases, and the set of parked jobs, are in the
--         same slot
--       6 ms that an outcome is kept, if a job itself says nothing of it
--       7 server time in ms; what was dispatched after that stays  8 cursor, '' to begin  9 most jobs
--       10 most bytes of letters to read
-- Returns how many were ended, a blank, and the cursor, '' at the end of a round. Jobs move on while it turns the pages,
-- so the caller begins another round until one has ended none.
-- Closes: as cancel.lua, for each job; the round that never ends because others dispatch meanwhile.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local queue, foreign = queue_at(4, #KEYS - 3, ARGV[3])
if foreign then return foreign end
queue.parked = ARGV[5] .. 'parked:' .. queue.name -- few jobs are, so it is no key of every queue's
local bad = mistyped({KEYS[2], 'hash', KEYS[3], 'hash', queue.parked, 'zset'})
if bad then return bad end
local here = {live = KEYS[2], watchers = KEYS[3], prefix = ARGV[5], at = now(), channel = ARGV[4], usual = ARGV[6],
  leave = true, queues = ARGV[5] .. 'queues', janitor = ARGV[5] .. 'janitor'}
bad = mistyped({here.queues, 'set', here.janitor, 'hash'})
if bad then return bad end
local most, room, ids, longest = tonumber(ARGV[9]), tonumber(ARGV[10]), {}, 0
local left, ended = most, 0
local AHEAD = 1000 -- ms by which a producer's idea of the server's time may be wrong
insist(queue.due)

local function spent() return left <= 0 or room <= 0 end

local function finish(one)
  left, ended = left - 1, ended + 1
  local ttl = cancel(here, queue, one, true)
  if ttl then
    ids[#ids + 1] = one.id
    longest = math.max(longest, tonumber(ttl))
  end
end

-- The state in which a job is in this queue, by its live record, or nil.
local function here_as(record)
  local job_state, name = string.match(record or '', '^(%S+) (%S+)')
  return name == queue.name and job_state or nil
end

local function is_older(job) return job.enqueued <= ARGV[7] + AHEAD end

-- The pages. Each goes on from a cursor, '' to begin, and returns the next one, or nil at its end.
local pages = {}

-- Jobs in a sorted set: the cursor is a rank, as so many have been looked at that stay. stray(one, state) sees to members
-- that are none of ours, by the state in which a job is in this queue, nil when it isn't.
local function aside(zset, state, from, stray)
  local rank = tonumber(from) or 0
  while not spent() do
    local id = call('ZRANGE', zset, rank, rank)[1]
    if not id then return nil end
    local text = call('HGET', queue.letters, id)
    local one, record = waiting_one(queue, id, state, text or nil), call('HGET', here.live, id)
    room = room - #(text or '')
    if one.job and not is_older(one.job) then
      rank, left = rank + 1, left - 1
    elseif stray(one, here_as(record)) then
      left = left - 1
    else
      finish(one)
    end
  end
  return string.format('%.0f', rank)
end

function pages.due(from)
  return aside(queue.due, 's', from, function(one, state)
    -- A stranger's due time for a job that is elsewhere says nothing of that job; and what nobody can read is no job.
    if state ~= 's' and state ~= 'r' and (not one.job or call('HEXISTS', here.live, one.member) == 1) then one.id = nil end
  end)
end

function pages.parked(from)
  return aside(queue.parked, 'b', from, function(one, state)
    return state ~= 'b' and call('ZREM', queue.parked, one.member)
  end)
end

-- Entries behind the last one that any group has read.
function pages.stream(from)
  local after = from == '' and '0-0' or from
  for _, group in ipairs(groups_of(queue.stream)) do
    if beyond(group.last, after) then after = group.last end
  end
  while not spent() do
    local found = call('XRANGE', queue.stream, '(' .. after, '+', 'COUNT', 1)[1]
    if not found then return nil end
    after, room = found[1], room - #(found[2][2] or '')
    local job = found[2][1] == 't1' and head(found[2][2]) or nil
    local one = {state = 'q', entry = after, held = {}, task = job and job.task or '', letter = '', job = job}
    -- A copy of an entry, by hand, says nothing of the job itself.
    local record = job and call('HGET', here.live, job.id)
    if job and (not record or record == 'q ' .. queue.name .. ' ' .. after) then one.id = job.id end
    if tonumber(string.match(after, '^%d+')) <= tonumber(ARGV[7]) or job and is_older(job) then
      finish(one)
    else
      left = left - 1
    end
  end
  return after
end

local AFTER = {due = 'parked', parked = 'stream'}
local kind, from = string.match(ARGV[8], '^(%a+) (%S*)$')
kind, from = pages[kind or ''] and kind or 'due', from or ''
while kind do
  local rest = pages[kind](from)
  if rest then
    from = rest
    break
  end
  kind, from = AFTER[kind], ''
end
if #ids > 0 then recent(queue.cancelled, ids, longest) end
local reply = ended .. ' ' .. (kind and kind .. ' ' .. from or '')
let_followers_go(here)
let_next_go(here)
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
