-- The seats of runs whose jobs were cancelled: the run goes on for a while, and holds them until it has really ended.
--
-- KEYS  1 live  2 queues  3 janitor  4 outlived  then the leases that the items name
-- ARGV  1 'renew' or 'free'  2 prefix of the partition's keys: whom it lets go, and where, is in the same slot
--       3 wake channel  4 ms that they are held from now on
--       then per item: job id, grant, needs
-- Returns how many of these runs held seats.
-- Closes: the lock that is free as soon as its holder is cancelled, while that one still runs. Nobody but such a run is
-- touched: a job that another worker took over has its seats under another grant, and under its id alone.
local bad = mistyped({KEYS[1], 'hash', KEYS[2], 'set', KEYS[3], 'hash', KEYS[4], 'zset'})
if bad then return bad end
local here = {live = KEYS[1], queues = KEYS[2], janitor = KEYS[3], prefix = ARGV[2], channel = ARGV[3], at = now()}
local count = 0
insist(KEYS[4])
for i = 5, #ARGV, 3 do
  local run, found = ARGV[i] .. '\n' .. ARGV[i + 1], false
  for _, seat in ipairs(needs_of(here, ARGV[i + 2]).seats) do
    if ARGV[1] == 'free' then
      call('ZREM', KEYS[4], seat.name .. ' ' .. run)
      if pcall_('ZREM', seat.key, run) == 1 then
        found = true
        has_left(seat)
      end
    elseif standing(seat, run) then
      found = true
      call('ZADD', KEYS[4], string.format('%.0f', here.at + ARGV[4]), seat.name .. ' ' .. run)
    end
  end
  if found then count = count + 1 end
end
let_next_go(here)
return count
