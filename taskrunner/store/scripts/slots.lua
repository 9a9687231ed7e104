-- Gives, keeps and takes back slots of limiters: what one client asks, in its order.
--
-- A slot is held by an id until its expiry, by server time. Owners say who took it and under which grant. Whoever waits
-- stands in the queue under a ticket of its own, by place; places and grants come from one counter, so a waiter that asks
-- again after its record was lost gets its place back.
--
-- KEYS  1 batch  2 janitor  then per limiter: slots, owners, queue, waiters
-- ARGV  1 batch number  2 seconds to remember it  3 channel on which the client hears of its waiters
--       then per call 7: kind  number of the limiter  id  ticket  limit  timeout in ms  place, if it has one
--       try      takes a slot or not     ask   the same, and waits in line if not     last  the same, and waits no more
--       leave    waits no more, and gives back a slot that this ticket has
--       release  gives back, and  renew  keeps the slot of an id, if its owner begins with the ticket
-- Returns per call a line: the grant of the slot that it has, 1, or 0; '-MS PLACE': it waits, and is to ask again after
-- that time at the latest; '!' and an error: the limiter's keys hold something else.
-- Told on a waiter's channel: 'TICKET MS', that it is to ask again after that time; 0: it has a slot.
-- Closes: two that count the holders and both come in; a slot that is free while somebody waits (whoever frees one gives
-- it to the first in line here, and whoever comes looks for expired ones first, on behalf of those who wait); a release by
-- somebody whose slot was given to another one; and the lost reply: asked again it answers as it did.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local bad = mistyped({KEYS[2], 'hash'})
if bad then return bad end

local KEPT_FOR = 15000 -- ms that a slot is kept for a waiter that it was given to, until it comes for it
local SILENT = 15000 -- ms after which a waiter that has not asked again counts as dead; it asks three times in that time
local ASK_AGAIN = 5000
local CHUNK, LOOKED, EXPIRED = 50, 1000, 200 -- waiters looked at at once, and by one call; expired holders removed by one
local at, janitor, channel = now(), KEYS[2], ARGV[3]

local function text(number) return string.format('%.0f', number) end

local function is_held(l, id)
  local expiry = tonumber(call('ZSCORE', l.slots, id) or nil)
  return expiry ~= nil and expiry > at
end

-- The grant under which an owner that begins so holds an id, or nil.
local function grant_of(l, id, beginning)
  local owner = is_held(l, id) and call('HGET', l.owners, id)
  if owner and string.sub(owner, 1, #beginning) == beginning then return string.match(owner, ' (%d+)$') end
end

local function give(l, id, ticket, ms)
  local grant = next_grant(janitor, at)
  call('ZADD', l.slots, text(at + ms), id)
  call('HSET', l.owners, id, ticket .. ' ' .. grant)
  l.held = l.held + 1
  return grant
end

local function take_back(l, id)
  call('ZREM', l.slots, id)
  call('HDEL', l.owners, id)
  l.held = l.held - 1
end

local function line_up(l, c, place)
  call('ZADD', l.queue, place, c.ticket)
  call('HSET', l.waiters, c.ticket, table.concat({text(at), text(c.limit), text(c.ms), channel, c.id}, ' '))
  l.most = math.max(l.most, c.limit)
end

local function step_out(l, ticket)
  call('ZREM', l.queue, ticket)
  call('HDEL', l.waiters, ticket)
end

-- Gives what is free to those who wait, first come first; whose id is held, or whose own limit is reached, lets others
-- by. It costs nothing while all is held: l.most is the greatest limit of those who wait.
local function hand_out(l, asker)
  local start, most = 0, 0
  while l.held < l.most and start < LOOKED do
    local tickets = call('ZRANGE', l.queue, start, start + CHUNK - 1)
    if #tickets == 0 then
      l.most = most -- all were looked at
      return
    end
    for n, record in ipairs(call('HMGET', l.waiters, unpack(tickets))) do
      local asked, limit, ms, where, id = string.match(record or '', '^(%d+) (%d+) (%d+) (%S+) (.*)$')
      if not asked or asked + SILENT < at then
        step_out(l, tickets[n])
      elseif l.held < tonumber(limit) and not is_held(l, id) then
        step_out(l, tickets[n])
        give(l, id, tickets[n], math.min(ms, KEPT_FOR))
        if tickets[n] ~= asker then pcall_('PUBLISH', where, tickets[n] .. ' 0') end
      else
        start, most = start + 1, math.max(most, limit)
      end
    end
  end
end

-- Milliseconds until somebody with this rank in line can possibly get a slot, if nobody gives one back.
local function earliest(l, rank, limit)
  local from = math.max(l.held - limit, 0) + rank
  local row = call('ZRANGEBYSCORE', l.slots, '(' .. text(at), '+inf', 'WITHSCORES', 'LIMIT', from, 1)
  return row[2] and math.max(1, math.min(row[2] - at, ASK_AGAIN)) or ASK_AGAIN
end

local function ask(l, c)
  local mine = c.ticket .. ' '
  local grant = grant_of(l, c.id, mine)
  if grant then
    hand_out(l)
  else
    local place = c.kind ~= 'try' and (call('ZSCORE', l.queue, c.ticket) or c.place)
    if place and place ~= '' then line_up(l, c, place) end
    hand_out(l, c.ticket)
    grant = grant_of(l, c.id, mine)
    -- Now nobody waits who could take what is left.
    if not grant and l.held < c.limit and not is_held(l, c.id) then
      step_out(l, c.ticket)
      grant = give(l, c.id, c.ticket, c.ms)
    elseif not grant and c.kind == 'ask' then
      if place == '' then
        place = next_grant(janitor, at)
        line_up(l, c, place)
      end
      local rank = call('ZCOUNT', l.queue, '-inf', '(' .. place)
      if rank == 0 then l.head = c.ticket end
      return '-' .. text(earliest(l, rank, c.limit)) .. ' ' .. text(tonumber(place))
    elseif not grant then
      step_out(l, c.ticket)
      return '0'
    end
  end
  call('ZADD', l.slots, text(at + c.ms), c.id)
  return grant
end

local function give_back(l, c)
  local is_leave = c.kind == 'leave'
  if is_leave then step_out(l, c.ticket) end
  local grant = grant_of(l, c.id, is_leave and c.ticket .. ' ' or c.ticket)
  if grant then take_back(l, c.id) end
  hand_out(l)
  return grant and '1' or '0'
end

local function renew(l, c)
  local grant = grant_of(l, c.id, c.ticket)
  if grant then call('ZADD', l.slots, text(at + c.ms), c.id) end
  hand_out(l)
  return grant and '1' or '0'
end

local KINDS = {try = ask, ask = ask, last = ask, leave = give_back, release = give_back, renew = renew}

local function open(l)
  insist(l.slots)
  local over = call('ZRANGEBYSCORE', l.slots, '-inf', text(at), 'LIMIT', 0, EXPIRED)
  if #over > 0 then
    call('ZREM', l.slots, unpack(over))
    call('HDEL', l.owners, unpack(over))
  end
  l.held = call('ZCOUNT', l.slots, '(' .. text(at), '+inf')
  l.most = tonumber(call('HGET', l.waiters, 'most') or 0) or 0
  l.head = call('ZRANGE', l.queue, 0, 0)[1]
end

-- Everything of a limiter ends with its last holder and its last waiter. Whoever has become the first in line is told how
-- long it has to wait now: it had reckoned with those before it.
local function close(l)
  local last = call('ZREVRANGE', l.slots, 0, 0, 'WITHSCORES')
  if last[2] then
    local left = text(math.max(last[2] - at, 0) + 1000) -- more, as the server may count from some instant before ours
    call('PEXPIRE', l.slots, left)
    call('PEXPIRE', l.owners, left)
  else
    call('DEL', l.owners)
  end
  local head = call('ZRANGE', l.queue, 0, 0)[1]
  if not head then
    call('DEL', l.queue, l.waiters)
    return
  end
  call('HSET', l.waiters, 'most', text(l.most))
  call('PEXPIRE', l.queue, SILENT + ASK_AGAIN)
  call('PEXPIRE', l.waiters, SILENT + ASK_AGAIN)
  local record = head ~= l.head and call('HGET', l.waiters, head)
  local limit, where = string.match(record or '', '^%d+ (%d+) %d+ (%S+) ')
  if limit then pcall_('PUBLISH', where, head .. ' ' .. text(earliest(l, 0, tonumber(limit)))) end
end

local limiters, replies = {}, {}
for first = 3, #KEYS, 4 do
  local l = {slots = KEYS[first], owners = KEYS[first + 1], queue = KEYS[first + 2], waiters = KEYS[first + 3]}
  l.foreign = mistyped({l.slots, 'zset', l.owners, 'hash', l.queue, 'zset', l.waiters, 'hash'})
  limiters[#limiters + 1] = l
end
for _, l in ipairs(limiters) do
  if not l.foreign then open(l) end
end
for a = 4, #ARGV, 7 do
  local l = limiters[tonumber(ARGV[a + 1])]
  local c = {kind = ARGV[a], id = ARGV[a + 2], ticket = ARGV[a + 3], limit = tonumber(ARGV[a + 4]),
    ms = tonumber(ARGV[a + 5]), place = ARGV[a + 6]}
  replies[#replies + 1] = l.foreign and '!' .. l.foreign.err or KINDS[c.kind](l, c)
end
for _, l in ipairs(limiters) do
  if not l.foreign then close(l) end
end
local reply = table.concat(replies, '\n')
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
