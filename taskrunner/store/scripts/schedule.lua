-- Makes, replaces, removes, pauses, resumes and moves schedules, up to 200 at a time.
--
-- KEYS  1 batch  2 schedules  3 ticks  4 fired  5 schedule-locks  6 janitor
-- ARGV  1 batch number  2 seconds to remember it  3 wake channel
--       then per item: operation, name, and its operands (nothing where there is none)
--         u  make or replace: revision, timing, lock, anchor, first tick, definition
--         r  remove: revision, or nothing for whatever there is
--         p  pause
--         c  resume: revision, the next tick
--         a  move on: revision and anchor, the tick that it must stand at, the one after it, the tick that was fired
-- Returns per item, as text: for u "lock NAME" when another schedule has that lock, else "done", its next tick, its latest
-- tick, its state, its anchor; for the others 1, or 0 when there is no such schedule, or not of that revision.
-- Closes: two deploys that replace a definition, of which one wins and the other leaves nothing; a definition that comes
-- again keeps its next tick; two schedules of one lock; a tick that comes back after a removal or a pause.
--
-- In the hash stands "revision timing state anchor lock" in front of the definition; state is a(ctive) or p(aused). In
-- the ticks stand revision and anchor beside the name: only what was read as it is now can be fired.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return type(past) == 'string' and cjson.decode(past) or past end
local schedules, ticks, fired, locks, janitor = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local bad = mistyped({schedules, 'hash', ticks, 'zset', fired, 'hash', locks, 'hash', janitor, 'hash'})
if bad then return bad end
insist(ticks)

local changed = false

local function member_of(name, one) return name .. '\n' .. one.revision .. ' ' .. one.anchor end

local function known(name)
  local text = call('HGET', schedules, name)
  if not text then return nil end
  local revision, timing, state, anchor, lock = string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+)\n')
  if not revision then return nil end
  local border = string.find(text, '\n', 1, true)
  local one = {revision = revision, timing = timing, state = state, anchor = anchor, lock = lock}
  one.definition, one.member = string.sub(text, border + 1), member_of(name, one)
  return one
end

local function keep(name, one)
  local head = table.concat({one.revision, one.timing, one.state, one.anchor, one.lock}, ' ')
  call('HSET', schedules, name, head .. '\n' .. one.definition)
end

local function free(lock, name)
  if lock ~= '-' and call('HGET', locks, lock) == name then call('HDEL', locks, lock) end
end

local function place(member, tick)
  if tick == '' then
    call('ZREM', ticks, member)
  elseif tonumber(call('ZSCORE', ticks, member) or -1) ~= tonumber(tick) then
    call('ZADD', ticks, tick, member)
    changed = true
  end
end

local function make(name, revision, timing, lock, anchor, first, definition)
  local holder = lock ~= '-' and call('HGET', locks, lock)
  if holder and holder ~= name and call('HEXISTS', schedules, holder) == 1 then return 'lock ' .. holder end
  local old, tick, state = known(name), first, 'a'
  if old then
    state = old.state
    if old.timing == timing then
      anchor, tick = old.anchor, call('ZSCORE', ticks, old.member) or first
    end
    if old.lock ~= lock then free(old.lock, name) end
    if old.revision ~= revision then call('ZREM', ticks, old.member) end
  end
  if lock ~= '-' then call('HSET', locks, lock, name) end
  local one = {revision = revision, timing = timing, state = state, anchor = anchor, lock = lock}
  one.definition = definition
  if not old or old.revision ~= revision then keep(name, one) end
  if state == 'p' then tick = '' end
  place(member_of(name, one), tick)
  call('HSET', janitor, 'schedules', 1)
  return table.concat({'done', tick == '' and '-' or tick, call('HGET', fired, name) or '-', state, anchor}, ' ')
end

local function remove(name, revision)
  local old = known(name)
  if not old then return call('HDEL', schedules, name) end
  if revision ~= '' and revision ~= old.revision then return 0 end
  call('ZREM', ticks, old.member)
  call('HDEL', fired, name)
  free(old.lock, name)
  return call('HDEL', schedules, name)
end

local function pause(name)
  local old = known(name)
  if not old then return 0 end
  old.state = 'p'
  keep(name, old)
  call('ZREM', ticks, old.member)
  return 1
end

-- A latest tick that lies ahead is that of a clock which was; it must not hold back the ticks until then.
local function resume(name, revision, following)
  local old = known(name)
  if not old or old.revision ~= revision then return 0 end
  if old.state == 'a' then return 1 end
  old.state = 'a'
  keep(name, old)
  if following ~= '' and tonumber(call('HGET', fired, name) or -1) >= tonumber(following) then
    call('HDEL', fired, name)
  end
  place(old.member, following)
  return 1
end

local function move(name, mark, expected, following, tick)
  local member = name .. '\n' .. mark
  if tonumber(call('ZSCORE', ticks, member) or -1) ~= tonumber(expected) then return 0 end
  if tick ~= '' and call('HEXISTS', schedules, name) == 1 then call('HSET', fired, name, tick) end
  if following == '' then call('ZREM', ticks, member) else call('ZADD', ticks, following, member) end
  return 1
end

local acts = {u = {make, 6}, r = {remove, 1}, p = {pause, 0}, c = {resume, 2}, a = {move, 4}}
local i, replies = 4, {}
while i <= #ARGV do
  local act, operands = unpack(acts[ARGV[i]])
  replies[#replies + 1] = tostring(act(ARGV[i + 1], unpack(ARGV, i + 2, i + 1 + operands)))
  i = i + 2 + operands
end
if changed then pcall_('PUBLISH', ARGV[3], 'schedule') end
call('SET', KEYS[1], ARGV[1] .. ' ' .. cjson.encode(replies), 'EX', ARGV[2])
return replies
