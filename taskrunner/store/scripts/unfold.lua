-- Goes on with what workflows have left over, as it was too much for one script: those behind a fork that start, nodes that
-- never will, jobs of cancelled workflows.
--
-- KEYS  1 live  2 watchers  3 janitor  4 queues  5 unfolding
-- ARGV  1 prefix of the partition's keys: the workflows and all of their jobs are in the same slot  2 wake channel
--       3 ms that an outcome is kept, if a job itself says nothing of it  4 '1': finished entries leave the stream
--       5 ms that a cancelled run which goes on keeps its seats
-- Returns ms until there is more to do, -1: nothing.
-- Closes: two who go on with the same: what one has done the other does not find, as a node's letter says how it is.
local bad = mistyped({KEYS[1], 'hash', KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'set', KEYS[5], 'zset'})
if bad then return bad end
local here = {live = KEYS[1], watchers = KEYS[2], janitor = KEYS[3], queues = KEYS[4], prefix = ARGV[1], channel = ARGV[2],
  usual = ARGV[3], leave = ARGV[4] == '1', reservation = tonumber(ARGV[5]), at = now(),
  is_unfolding = true}
local PAGE = 50 -- jobs that one script cancels

-- Cancels the job of a node, or the node when there is no such job.
local function cancel_node(flow, number)
  local id = pcall_('HGET', flow.jobs, number)
  if type(id) ~= 'string' then id = string.format('%s.%.0f', flow.id, number) end
  local partition = call('HGET', flow.key, 'q:' .. number)
  if partition then
    return send(here, partition, 'cancel', id, flow.id)
  end
  if not cancel_by_id(here, id) then
    note_ends(here, {id}, {'c'}, {})
    add('ended', flow, number, 'c', nil, '-') -- if nobody knew any more that it is a node
  end
end

-- A page of a range of nodes that are cancelled, from its first on.
function DO.cut(_, flow, number, last)
  last = tonumber(last)
  local states, seen, found = call('GETRANGE', flow.nodes, number, math.min(last, number + 999)), 0, 0
  while seen < #states and found < PAGE do
    local state = string.sub(states, seen + 1, seen + 1)
    if state == 'o' then
      found = found + 1
      cancel_node(flow, number + seen)
    elseif state == 'w' and (call('HEXISTS', flow.key, 'i:' .. (number + seen)) == 1 or
      call('HEXISTS', flow.key, 'c:' .. (number + seen)) == 1) then
      found = found + 1
      add('never', flow, number + seen, 'c')
    end
    seen = seen + 1
  end
  if number + seen <= last then put_off(here, 'cut', flow, number + seen, string.format('%.0f', last)) end
end

local LEFT_OVER = {go = true, never = true, behind = true, cut = true}
local todo = call('ZRANGEBYSCORE', KEYS[5], '-inf', here.at, 'LIMIT', 0, 10)
for n = 1, #todo do
  local number, what, how, id = string.match(todo[n], '^(%d+) (%a+) (%S+) (.*)$')
  call('ZREM', KEYS[5], todo[n])
  local flow = LEFT_OVER[what or ''] and flow_of(here, id)
  if flow then
    if how == '-' and what ~= 'behind' then how = nil end
    if is_full() then
      put_off(here, what, flow, number, how)
    else
      attempt(DO[what], here, flow, tonumber(number), how)
    end
    let_followers_go(here)
  end
end
let_next_go(here)
local head = call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
return head[2] and math.max(0, math.ceil(tonumber(head[2]) - here.at)) or -1
