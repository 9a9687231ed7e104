-- Lets jobs run that need a single seat, of a lock, and have just arrived for the first time: the short way of admit.lua,
-- for the usual case that nobody else wants the same lock.
--
-- KEYS  1 janitor  2 alone  3 outlived
-- ARGV  the digests of the locks, then the ids of the jobs
-- Returns {the number of the grant that all of them have, one character per item: 1, it runs; 0, nothing was changed: it
-- has to be asked for with admit.lua}.
-- Closes: as admit.lua. No token is looked at: who ends a job, in whatever way, takes it out of its line, and who takes
-- over a dead worker's job asks with admit.lua. A job that stands alone is there, and is in the hands of him who has just
-- fetched it; should this be asked so late that it is not, then the caller's reservation is over by its own clock too, and
-- it starts nothing.
local janitor, alone, n = KEYS[1], KEYS[2], #ARGV / 2
local bad = mistyped({janitor, 'hash', KEYS[3], 'zset'})
if bad then return bad end
if mistyped({alone, 'hash'}) then return {0, string.rep('0', n)} end
insist(KEYS[3])
local grant, verdicts, taken = next_grant(janitor, now()), {}, {}
local runs = '-' .. grant .. ' '
local found = call('HMGET', alone, unpack(ARGV, 1, n))
for item = 1, n do
  local only, id = found[item], ARGV[n + item]
  -- A minus: it runs. An id may have blanks, a score has none.
  local stands = only and string.byte(only) ~= 45 and string.sub(only, string.find(only, ' ', 1, true) + 1) == id
  verdicts[item] = stands and '1' or '0'
  if stands then
    taken[#taken + 1] = ARGV[item]
    taken[#taken + 1] = runs .. id
  end
end
if #taken > 0 then call('HSET', alone, unpack(taken)) end
return {tonumber(grant), table.concat(verdicts)}
