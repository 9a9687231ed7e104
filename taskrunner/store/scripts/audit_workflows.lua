-- Compares workflows with what is there of them, and sees to it that they end, whatever operators, eviction and lost data
-- have taken away: a node ends whose job is gone, a job learns anew that others wait for it, and what waits for nothing
-- any more will not run.
--
-- KEYS  1 janitor  2 live  3 watchers  4 queues  5 workflows  6 followers  7 unfolding
--       then the keys of what is looked at: three of each workflow; or the outcome of each job
-- ARGV  1 'mend'; 'look': changes nothing  2 prefix of the partition's keys: the queues of jobs that start are in the same
--         slot  3 wake channel  4 ms that the remains of a workflow stay
--       5 'nodes', then pairs: workflow, node to begin with; 'links', then jobs that others wait for; 'ask', then pairs:
--         workflow, node that is open for a job that its partition does not seem to know
-- Returns {how many of these were looked at, the node to go on with in the next one; then triples (what, workflow, where)}:
--   ended     the job of a node was gone; it has ended as the job's outcome says, else as failed
--   linked    a job did not know any more that it is a node
--   stuck     nothing was under way that could bring it on: that node does not wait any more
--   ruined    the letters of its nodes are gone: it has failed
--   removed   nothing was left of it but its name
--   listed    it was not among those that run
--   abroad    no damage: the node's job is in another partition; where: node, partition, job
-- Closes: DEL, HDEL, XDEL of parts, and eviction. Each step of a workflow is one script, so what doesn't fit together here
-- is not on its way from one state to the next. All keys whose absence tells something are named: while a cluster's slot
-- moves, the script is refused.
local janitor, live, watchers, queues = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local listed, links, unfolding = KEYS[5], KEYS[6], KEYS[7]
local mend = ARGV[1] == 'mend'
local here = {live = live, watchers = watchers, janitor = janitor, queues = queues, prefix = ARGV[2], channel = ARGV[3],
  at = now()}
local MOST, MOST_BYTES = 100, 1000000 -- open nodes, jobs or mended things per call, and letters of nodes read
local WHY = 'a part of its workflow was deleted, by somebody or by eviction'

local bad = mistyped({janitor, 'hash', live, 'hash', watchers, 'hash', queues, 'set', listed, 'zset', links, 'hash',
  unfolding, 'zset'})
if bad then return bad end

local reply, left, bytes, changes = {0, 0}, MOST, 0, 0
local function tell_of(what, id, where)
  left = left - 1
  if what == 'ended' or what == 'stuck' then changes = changes + 1 end
  for _, word in ipairs({what, id, where}) do reply[#reply + 1] = tostring(word) end
end

local function orphaned() return cjson.encode({'f', '', '', 0, 0, here.at, 0, {'Orphaned', WHY, '', 'orphaned'}}) .. '\n' end

-- What is known of the end of a job that does not live.
local function record_of(id)
  local record = pcall_('GET', here.prefix .. 'job:' .. id)
  return type(record) == 'string' and string.sub(record, 1, 1) == '[' and record or orphaned()
end

-- The workflows of which something is left over for unfold.lua; nil when these are too many to read.
local unfolded
local function unfolding_ones()
  if unfolded == nil then
    unfolded = call('ZCARD', unfolding) <= 10 * MOST and {}
    local members = unfolded and call('ZRANGE', unfolding, 0, -1) or {}
    for n = 1, #members do unfolded[string.match(members[n], '^%d+ %a+ %S+ (.*)$') or ''] = true end
  end
  return unfolded
end

-- A name without its workflow: what else there is of it expires, and whoever waits for it hears of that.
local function remove(id, keys)
  tell_of('removed', id, '')
  if not mend then return end
  call('ZREM', listed, id)
  for _, key in ipairs(keys) do
    if call('PTTL', key) == -1 then call('PEXPIRE', key, ARGV[4]) end
  end
  for one in string.gmatch(call('HGET', watchers, id) or '', '%S+') do pcall_('PUBLISH', one, id) end
  call('HDEL', watchers, id)
end

-- Nobody knows how its nodes were, or how many there are left.
local function ruin(flow, size)
  tell_of('ruined', flow.id, '')
  if not mend then return end
  call('SET', flow.nodes, string.rep('n', size))
  if call('HEXISTS', flow.key, 'stopped') == 0 and call('HSETNX', flow.key, 'failed', 0) == 1 then
    call('HSET', flow.key, 'r:0', orphaned())
  end
  flow.left, flow.is_changed = 0, true
end

local function cause_in(flow) return call('HEXISTS', flow.key, 'stopped') == 1 and 'c' or 'f' end

-- What a join has come to, by how its members are; nil while one of all that belongs to it has not ended.
local function worth(flow, number, members, states)
  local past = tonumber(call('HGET', flow.key, 'e:' .. number) or nil) or number
  if string.find(string.sub(states, number + 2, past + 1), '[wo]') then return nil end
  local known = call('HGET', flow.key, 'x:' .. number)
  if known or #members > 10000 then return known or call('HEXISTS', flow.key, 'failed') == 1 and 'f' or 's' end
  for first, last in string.gmatch(members, '(%d+)%-(%d+)') do
    if string.find(string.sub(states, first + 1, last + 1), '[^s]') then return cause_in(flow) end
  end
  return 's'
end

-- What one node waits for will never come, as nothing is under way. Returns whether that is enough for now: others may
-- be told of it.
local function go_on(flow, number, states)
  local item, chunks, members = unpack(call('HMGET', flow.key, 'i:' .. number, 'c:' .. number, 'm:' .. number))
  if not members then
    if not item and not chunks then -- its letter was deleted
      add('ended', flow, number, 'f', orphaned(), '-')
      return false
    end
    local cause = cause_in(flow)
    if cause == 'f' and call('HSETNX', flow.key, 'failed', number) == 1 then
      call('HSET', flow.key, 'r:' .. number, orphaned())
      flow.is_told = true
    end
    add('never', flow, number, cause)
    return true
  end
  -- The fork of a join is the node before it: has it let go all that are behind it?
  local fork = number - 1
  local nth, past = string.match(call('HGET', flow.key, 'c:' .. fork) or '', '^(%d+) (%d+)$')
  local was = string.sub(states, number, number)
  if nth and was ~= 'w' and tonumber(nth) < tonumber(past) then
    put_off(here, 'behind', flow, fork, was == 's' and '-' or cause_in(flow))
    return true
  end
  local how = worth(flow, number, members, states)
  if how then add('ended', flow, number, how, nil, '-') end
  return how
end

-- A workflow with nothing under way: the first of its nodes that can be helped. Those behind it are seen to in the same
-- step, or by the next one; a node that waits comes before those that wait for it, but for edges of a graph that go
-- backwards.
local function unstick(flow, states)
  local number = string.find(states, 'w', 1, true)
  if not number then return ruin(flow, #states) end
  tell_of('stuck', flow.id, number - 1)
  if not mend then return end
  for _ = 1, MOST do
    if go_on(flow, number - 1, states) then return end
    number = string.find(states, 'w', number + 1, true)
    if not number then return end
  end
end

-- One open node: id, what its live record and its links say, and the partition of its job.
local function judge_node(flow, number, id, record, text, partition)
  if partition then
    if not string.match(partition, '^%d%d?%d?%d?$') then return end
    return tell_of('abroad', flow.id, string.format('%.0f %s %s', number, partition, id))
  end
  local link, is_linked = string.format('%.0f . ', number), false
  for line in string.gmatch(text or '', '[^\n]+') do
    is_linked = is_linked or string.sub(line, 1, #link) == link and string.sub(line, -#flow.id - 1) == ' ' .. flow.id
  end
  if is_linked then return end -- and if its job is gone, that link is looked at for itself
  if record then
    tell_of('linked', flow.id, number)
    if mend then add_link(here, id, link_of(flow, number, '-')) end
  else
    tell_of('ended', flow.id, number)
    if not mend then return end
    local how, value = outcome_of(record_of(id))
    add('ended', flow, number, how, value, '-')
  end
end

local function judge_nodes(flow, numbers)
  local ids, placed, wanted = {}, {}, {}
  for n = 1, #numbers do wanted[n], placed[n] = numbers[n], 'q:' .. numbers[n] end
  local known, partitions = call('HMGET', flow.jobs, unpack(wanted)), call('HMGET', flow.key, unpack(placed))
  for n = 1, #numbers do ids[n] = known[n] or string.format('%s.%.0f', flow.id, numbers[n]) end
  local records, texts = call('HMGET', live, unpack(ids)), call('HMGET', links, unpack(ids))
  for n = 1, #numbers do judge_node(flow, numbers[n], ids[n], records[n], texts[n], partitions[n]) end
end

-- A workflow, from a node on. Returns the node to go on with, nil when it is done.
local function judge(id, from, keys)
  left = left - 3 -- some fifteen calls for each
  if not call('ZSCORE', listed, id) then return nil end
  if mistyped({keys[1], 'hash', keys[2], 'string', keys[3], 'hash'}) then return nil end -- that is the doctor's
  local flow = flow_of(here, id)
  if not flow or flow.left <= 0 then return remove(id, keys) end
  local ok, facts = pcall(cjson.decode, call('HGET', flow.key, 'head') or '')
  local size, long = ok and type(facts) == 'table' and tonumber(facts.nodes), call('STRLEN', flow.nodes)
  if not size then
    if mend then call('DEL', flow.key) end
    return remove(id, keys)
  end
  if long ~= size then return ruin(flow, size) end
  local states = call('GET', flow.nodes)
  bytes = bytes + size
  if from == 0 and string.find(states, '[^wosfecn]') then return ruin(flow, size) end
  if not string.find(states, 'o', 1, true) then
    local busy = unfolding_ones()
    if busy and not busy[id] then unstick(flow, states) end
    return nil
  end
  local numbers, at = {}, from
  while #numbers < math.max(left, 1) do
    at = string.find(states, 'o', at + 1, true)
    if not at then break end
    numbers[#numbers + 1] = at - 1
  end
  left = left - #numbers
  if #numbers > 0 then judge_nodes(flow, numbers) end
  return at
end

-- A job that others wait for.
local function judge_link(id)
  local text = call('HGET', links, id)
  if not text then return end
  local is_live = call('HEXISTS', live, id) == 1
  for number, partition, workflow in string.gmatch(text, '(%d+) (%S+) %S+ ([^\n]*)') do
    if not is_live then
      tell_of('ended', workflow, number)
    elseif partition == '.' and not call('ZSCORE', listed, workflow) then
      local flow = flow_of(here, workflow)
      if flow and flow.left > 0 then
        tell_of('listed', workflow, '')
        if mend then call('ZADD', listed, here.at, workflow) end
      end
    end
  end
  if mend and not is_live then note_ends(here, {id}, {'f'}, {record_of(id)}) end
end

-- Whether the other partition knows the job it will say itself, behind all that it has said before (deliver.lua).
local function ask(id, number)
  local flow = flow_of(here, id)
  if not flow or call('GETRANGE', flow.nodes, number, number) ~= 'o' then return end
  local partition = call('HGET', flow.key, 'q:' .. number)
  if not partition or not string.match(partition, '^%d+$') then return end
  local job = pcall_('HGET', flow.jobs, number)
  if type(job) ~= 'string' then job = id .. '.' .. number end
  send(here, partition, 'look', cmsgpack.pack({number, job}), id)
end

if mend then insist(listed) end -- a full server, too, is rid of what can't go on
local what, n = ARGV[5], 6
while n <= #ARGV and left > 0 and bytes <= MOST_BYTES do
  if what == 'nodes' then
    local first = 8 + 3 * (n - 6) / 2
    local on, from, before = nil, tonumber(ARGV[n + 1]), nil
    repeat -- what is behind a node that has ended may wait for nothing any more
      before = changes
      on = judge(ARGV[n], from, {KEYS[first], KEYS[first + 1], KEYS[first + 2]})
      if mend then let_followers_go(here) end
      from = 0
    until on or changes == before or left <= 0 or not mend
    if on then
      reply[2] = on
      break
    end
    n = n + 2
  elseif what == 'ask' then
    ask(ARGV[n], ARGV[n + 1])
    n = n + 2
  else
    judge_link(ARGV[n])
    left, n = left - 1, n + 1
  end
end
reply[1] = what == 'links' and n - 6 or (n - 6) / 2
if mend then
  let_followers_go(here)
  let_next_go(here)
end
return reply
