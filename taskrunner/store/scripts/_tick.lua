-- Put in front of the script that takes new jobs: each tick of a schedule is fired once.

-- Whether a tick may be fired now, and notes that it is. A tick is fired once, even when the clock was set back.
local function claim(fired, name, tick)
  if mistyped({fired, 'hash'}) or tonumber(call('HGET', fired, name) or -1) >= tonumber(tick) then return false end
  call('HSET', fired, name, tick)
  return true
end

-- The same for a tick of this partition: moves its schedule on, if it still stands there.
local function advance(at, ticks, fired, member, name, expected, following, tick)
  if mistyped({ticks, 'zset', fired, 'hash'}) or tonumber(tick) > at then return false end
  if tonumber(call('ZSCORE', ticks, member) or -1) ~= tonumber(expected) then return false end
  if following == '' then call('ZREM', ticks, member) else call('ZADD', ticks, following, member) end
  return claim(fired, name, tick)
end
