-- Lists the jobs of one queue that are in one state, a page at a time and without their arguments. Changes nothing.
--
-- KEYS  1-14 the queue
-- ARGV  1 group  2 state  3 cursor, '' to begin  4 most jobs  5 most bytes of letters and outcomes to read
--       6 prefix of the partition's keys: the outcomes and the set of parked jobs are in the same slot  7 queue
-- Returns {cursor, '' at the end; then five per job: id, head of its letter or outcome, ms of its due time or failure,
--          consumer, delivery count}. The id of an entry in the stream stands only in its head.
-- Closes: what a client would see that asks for ids first and for letters then, of jobs that go on meanwhile.
local queue, foreign = queue_at(1, 14, ARGV[7])
if foreign then return foreign end
local group, state, from, most, room = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local reply = {''}

-- Notes a job; false when the page is full.
local function note(id, text, at, consumer, count)
  room = room - #(text or '')
  for _, part in ipairs({id, string.match(text or '', '^[^\n]*'), at, consumer, count}) do reply[#reply + 1] = part end
  return room > 0 and #reply <= 5 * most
end

local function delivered_up_to()
  for _, one in ipairs(groups_of(queue.stream)) do
    if one.name == group then return one.last end
  end
  return '0-0'
end

local pages = {}

function pages.queued()
  local after = from == '' and delivered_up_to() or from
  while true do
    local entry = call('XRANGE', queue.stream, '(' .. after, '+', 'COUNT', 1)[1]
    if not entry then return end
    after = entry[1]
    if not note('', entry[2][2], string.match(after, '^%d+'), '', 0) then return after end
  end
end

function pages.running()
  local rows = pcall_('XPENDING', queue.stream, group, from == '' and '-' or '(' .. from, '+', most)
  for n = 1, rows.err and 0 or #rows do
    local entry = call('XRANGE', queue.stream, rows[n][1], rows[n][1])[1]
    local text = entry and entry[2][2] or ''
    if not note('', text, string.match(rows[n][1], '^%d+'), rows[n][2], rows[n][4]) then return rows[n][1] end
  end
end

-- A page of a sorted set of waiting jobs. The cursor is a rank: what moves on meanwhile may be missed or come twice, as
-- in any list of a queue that is at work.
local function waiting(zset, is_listed)
  local rank = tonumber(from) or 0
  while true do
    local rows = call('ZRANGE', zset, rank, rank + 99, 'WITHSCORES')
    if #rows == 0 then return end
    for n = 1, #rows, 2 do
      rank = rank + 1
      if is_listed(rows[n]) then
        local _, _, _, letter = kept(call('HGET', queue.letters, rows[n]))
        if not note(rows[n], letter, rows[n + 1], '', 0) then return tostring(rank) end
      end
    end
  end
end

function pages.scheduled()
  return waiting(queue.due, function(id) return not call('ZSCORE', queue.retrying, id) end)
end

function pages.retrying()
  return waiting(queue.retrying, function() return true end)
end

function pages.blocked()
  return waiting(ARGV[6] .. 'parked:' .. queue.name, function() return true end)
end

function pages.failed()
  local rank = tonumber(from) or 0
  local rows = call('ZREVRANGE', queue.dead, rank, rank + most - 1, 'WITHSCORES')
  for n = 1, #rows, 2 do
    rank = rank + 1
    local record = call('HGET', queue.dead_letters, rows[n])
    if record and not note(rows[n], record, rows[n + 1], '', 0) then return tostring(rank) end
  end
end

-- The head of an outcome that is no failure has no more than some hundred bytes; its result may have a million.
local HEAD = 4096
local function ended(list)
  local index = tonumber(from) or 0
  local ids = call('LRANGE', list, index, index + most - 1)
  for n = 1, #ids do
    index = index + 1
    local text = call('GETRANGE', ARGV[6] .. 'job:' .. ids[n], 0, HEAD - 1)
    if text ~= '' and not note(ids[n], text, '0', '', 0) then return tostring(index) end
  end
  if #ids == most then return tostring(index) end
end

function pages.succeeded() return ended(queue.succeeded) end
function pages.cancelled() return ended(queue.cancelled) end
function pages.expired() return ended(queue.expired) end

reply[1] = pages[state]() or ''
return reply
