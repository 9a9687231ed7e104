-- Finds those who stand in leases and are no jobs any more, and frees their seats and places.
--
-- KEYS  1 live  2 queues  3 janitor  then leases
-- ARGV  1 '1': free them, else only count  2 prefix of the partition's keys: whom it lets go, and where, is in the same slot
--       3 wake channel  then digests of locks that one job wants alone
-- Returns how many there are among the first thousand of each lease: those who run, and then who is first in line.
-- Closes: a seat that is held for ever because its job was lost with its letter, which alone says what it needs, and nobody
-- waits for it, so that no audit comes by.
local bad = mistyped({KEYS[1], 'hash', KEYS[2], 'set', KEYS[3], 'hash'})
if bad then return bad end
local here = {live = KEYS[1], queues = KEYS[2], janitor = KEYS[3], prefix = ARGV[2], channel = ARGV[3], at = now()}
local FIRST, count = 1000, 0
for k = 4, #KEYS do
  local ids = pcall_('ZRANGE', KEYS[k], 0, FIRST - 1)
  local gone = (ids.err or #ids == 0) and {} or nobodies(here, ids)
  count = count + #gone
  if #gone > 0 and ARGV[1] == '1' then
    call('ZREM', KEYS[k], unpack(gone))
    -- Nobody is there to say how many seats there are; the first in line knows.
    has_left({key = KEYS[k], name = string.match(KEYS[k], '[^:]*$') .. ':1', capacity = 1}, #gone)
  end
end
for a = 4, #ARGV do
  local only = pcall_('HGET', here.prefix .. 'alone', ARGV[a])
  local id = string.match(type(only) == 'string' and only or '', '^%S+ (.*)$')
  if id and call('HEXISTS', here.live, id) == 0 then
    count = count + 1
    if ARGV[1] == '1' then call('HDEL', here.prefix .. 'alone', ARGV[a]) end
  end
end
if ARGV[1] == '1' then let_next_go(here) end
return count
