-- Cancels a workflow: nothing of it starts any more. Its jobs that have started are cancelled page by page, by unfold.lua.
--
-- KEYS  1 batch  2 watchers  3 workflow  4 its nodes  5 its jobs
-- ARGV  1 batch number  2 seconds to remember it  3 prefix of the partition's keys  4 wake channel  5 id
-- Returns '1'; or '0': it has ended, or is unknown.
-- Closes: the step that starts while others are being cancelled.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local bad = mistyped({KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'string', KEYS[5], 'hash'})
if bad then return bad end
call('HDEL', KEYS[2], '') -- a full server lets go what is cancelled (insist)
local here = {watchers = KEYS[2], prefix = ARGV[3], channel = ARGV[4], at = now()}
local reply, flow = '0', flow_of(here, ARGV[5])
if flow and flow.left > 0 then
  reply = '1'
  call('HSETNX', flow.key, 'stopped', -1)
  cut(here, flow, 0, call('STRLEN', flow.nodes) - 1)
  flow.is_told = true
  let_followers_go(here)
end
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
