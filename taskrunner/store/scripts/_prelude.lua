-- Put in front of every script: the words that they share.
local call, pcall_ = redis.call, redis.pcall
local FLOW_WINDOW = 10000 -- ms; rates are exponentially weighted over about this long

-- Server time in milliseconds: the only clock that any deadline is measured with.
local function now()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The complaint about the first key whose type isn't what we keep there, or nil. Asked before the first write, because
-- a script that fails half-way keeps what it wrote.
local function mistyped(kinds)
  for i = 1, #kinds, 2 do
    local kind = call('TYPE', kinds[i]).ok
    if kind ~= 'none' and kind ~= kinds[i + 1] then
      return redis.error_reply('WRONGTYPE ' .. kinds[i] .. ' holds a ' .. kind .. ', not a ' .. kinds[i + 1])
    end
  end
end

-- A batch that was sent again because its reply was lost gets that reply, and changes nothing a second time. One that
-- comes after its successor was stuck on a dead connection; its sender has long had its answer.
-- Being remembered anew is also a write: WAIT and WAITAOF speak of the last one of their connection, and on a connection
-- without any they confirm what was written on another one before anybody has it.
local function replay(key, number, seconds)
  local last = call('GET', key)
  if not last then return nil end
  local cut = string.find(last, ' ', 1, true)
  local known = tonumber(string.sub(last, 1, cut - 1))
  if known == tonumber(number) then
    call('PEXPIRE', key, seconds * 1000)
    return string.sub(last, cut + 1)
  end
  if known > tonumber(number) then return redis.error_reply('STALE batch ' .. number .. ' came after ' .. known) end
end

-- A server that is out of memory refuses a script its first write, unless that can only free some; after it, it refuses
-- nothing. So what keeps and drains jobs goes on, and only new ones are refused.
local function insist(zset) call('ZREM', zset, '') end

-- Adds n events to an exponentially decaying sum "value last since"; value / FLOW_WINDOW is the rate per ms. Like all
-- figures it begins anew where it finds something else: a script that has moved jobs must not fail for a statistic.
local function flow(key, field, n, at)
  local value, since = 0, at
  local text = call('HGET', key, field)
  if text then
    local old, last, first = string.match(text, '^(%S+) (%S+) (%S+)$')
    old, last, first = tonumber(old), tonumber(last), tonumber(first)
    local gap = last and math.max(at - last, 0)
    if old and first and gap and gap < 6 * FLOW_WINDOW then
      value, since = old * math.exp(-gap / FLOW_WINDOW), first
    end
  end
  call('HSET', key, field, string.format('%.10g %.0f %.0f', value + n, at, since))
end

-- True while nothing may be called expired. Idle time is wall-clock time: after an outage, a pause or a clock step all
-- that runs looks abandoned at once. Such a gap shows as a silence of two of the caller's beats (each worker of the fleet
-- ends it), and then everybody gets the time to beat, those with a longer period too, before anybody claims.
local function guard(janitor, at, reservation, beat)
  local state = call('HMGET', janitor, 'last', 'grace')
  local last, grace = tonumber(state[1]), tonumber(state[2] or 0)
  if not last or at - last > 2 * beat or at < last then
    grace = at + math.max(2 * beat, reservation / 2) + 1000
  end
  call('HSET', janitor, 'last', at, 'grace', grace)
  return at < grace
end

-- Puts a job aside until a due time. Tells sleeping promoters when it became the earliest.
local function later(due, letters, id, at, letter, channel)
  local head = call('ZRANGE', due, 0, 0, 'WITHSCORES')
  call('ZADD', due, at, id)
  call('HSET', letters, id, letter)
  if not head[2] or at < tonumber(head[2]) then call('PUBLISH', channel, 'due') end
end

-- A letter that waits stands with what its entry will need: task, marks, version of the format, letter.
local function keep(task, marks, version, letter)
  return task .. '\n' .. marks .. '\n' .. version .. '\n' .. letter
end

local function kept(text)
  return string.match(text or '', '^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
end

-- Adds an entry. Marks are further fields, which scripts can see beside the sealed letter: r, a reservation of the
-- task's own in ms.
local function enter(stream, marks, version, letter)
  if marks == '' then return call('XADD', stream, '*', version, letter) end
  local fields = {version, letter}
  for mark in string.gmatch(marks, '%S+') do fields[#fields + 1] = mark end
  return call('XADD', stream, '*', unpack(fields))
end
