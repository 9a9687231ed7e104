-- Removes a job and all that is known of it: ends it without an outcome if it has not ended, else its outcome and its dead
-- letter go.
--
-- KEYS  1 batch  2 live  3 watchers  4 record  5 what the job saved  6 how far it was  then the queue
-- ARGV  as of cancel.lua
-- Returns what cancel.lua returns; or '3': it had ended, and something was there of it.
-- Closes: the same as cancel.lua.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local bad = mistyped({KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'string', KEYS[5], 'string',
  KEYS[6], 'string'})
if bad then return bad end
local queue, foreign = queue_at(7, #KEYS - 6, ARGV[3])
if foreign then return foreign end
local here = {live = KEYS[2], watchers = KEYS[3], prefix = ARGV[5], at = now(), channel = ARGV[4], usual = ARGV[6],
  leave = ARGV[7] == '1', reservation = tonumber(ARGV[8]), queues = ARGV[5] .. 'queues', janitor = ARGV[5] .. 'janitor'}
bad = mistyped({here.queues, 'set', here.janitor, 'hash'})
if bad then return bad end
insist(queue.due)

local reply, id = '0', ARGV[9]
local one, other = sought(here, queue, id)
if other then
  reply = 'elsewhere'
else
  local remains = call('DEL', KEYS[4], KEYS[5], KEYS[6]) > 0
  if unbury(queue, id) or remains then reply = '3' end
  if one then
    cancel(here, queue, one, false)
    local is_held = one.held and #one.held > 0
    reply = is_held and '2' or '1\n' .. (ARGV[10] == '1' and one.letter or '')
  end
end
let_followers_go(here)
let_next_go(here)
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
