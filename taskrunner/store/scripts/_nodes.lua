-- Put in front of the scripts that end jobs: the nodes of workflows, and what becomes of those behind one that has ended.
-- _follow.lua lets them go.
--
-- A node is a job, a fork or a join, and has a number (blueprint.py). One letter per node, in one string, says how it is:
-- w it waits, o its job exists, s f e c its job has succeeded, failed, expired, was cancelled; n it never ran. A node that
-- ends is told to those behind it only if its letter was w or o, and the letter is changed in the same step: whatever is
-- told twice counts once, and no count is ever off. What waits stands in the workflow's hash:
--
--   i:K item of a job   c:K chunks of a fork, the first and the number of them   c:K:N a chunk: items of jobs behind it
--   b:K how many before it have not ended   f:K its followers   v:K its value   r:K the record of the first that
--   failed   p:K a value that was handed to it, and it was put off   x:K what a join has come to so far   e:K the last node
--   that belongs to a join, and a:K what of it is not cancelled with it   q:K the partition of a job that is in another one
--   left: nodes that have not ended   result: the node whose end is the workflow's   failed, stopped: the first that did
--   not succeed   cut: ranges of nodes that are cancelled   watched: somebody waits for a node
--
-- here  as for the leases, and watchers: key

local LETS, WEIGHT = 150, 1000000 -- nodes that one script sees to, and bytes of letters: some milliseconds
local lets, weight = 0, 0
local flows, work, first, last = {}, {}, 1, 0

local function is_full() return lets >= LETS or weight >= WEIGHT end

local function flow_of(here, id)
  local flow = flows[id]
  if flow ~= nil then return flow end
  flow = {id = id, key = here.prefix .. 'workflow:' .. id, nodes = here.prefix .. 'workflow-nodes:' .. id,
    jobs = here.prefix .. 'workflow-jobs:' .. id}
  local facts = pcall_('HMGET', flow.key, 'left', 'result', 'cut', 'watched')
  if facts.err or mistyped({flow.nodes, 'string'}) then
    flow = false
  else
    flow.left, flow.result, flow.cut = tonumber(facts[1] or nil), tonumber(facts[2] or nil), {}
    flow.is_watched = facts[4]
    flow.letters, flow.changed, flow.values, flow.less, flow.gone = {}, {}, {}, {}, {}
    for from, to in string.gmatch(facts[3] or '', '(%d+)-(%d+)') do
      flow.cut[#flow.cut + 1] = {tonumber(from), tonumber(to)}
    end
    if not flow.left then flow = false end
  end
  flows[id] = flow
  return flow
end

local function is_cut(flow, number)
  for _, range in ipairs(flow.cut) do
    if number >= range[1] and number <= range[2] then return true end
  end
  return false
end

-- How a node is, and how it is from now on. Letters are read once, and written together at the end (keep_books): those of
-- a batch stand close to each other.
local function letter_of(flow, number)
  local letter = flow.letters[number]
  if not letter then
    letter = call('GETRANGE', flow.nodes, number, number)
    flow.letters[number] = letter
  end
  return letter
end

local function set_letter(flow, number, letter)
  local changed = flow.changed
  flow.letters[number] = letter
  flow.is_mixed = flow.is_mixed or #changed > 0 and changed[#changed] > number
  changed[#changed + 1] = number
end

local SPAN = 1000 -- letters that are read or written in one go
local function read_letters(flow, numbers)
  local from, to = math.huge, -1
  for n = 1, #numbers do from, to = math.min(from, numbers[n]), math.max(to, numbers[n]) end
  if #numbers < 3 or to - from >= SPAN then return end
  local found = call('GETRANGE', flow.nodes, from, to)
  for n = 1, #numbers do
    local number = numbers[n]
    flow.letters[number] = flow.letters[number] or string.sub(found, number - from + 1, number - from + 1)
  end
end

local function write_letters(flow)
  local numbers, n = flow.changed, 1
  if #numbers == 0 then return end
  if flow.is_mixed then table.sort(numbers) end
  while n <= #numbers do
    local from, letters = numbers[n], {flow.letters[numbers[n]]}
    while numbers[n + 1] and numbers[n + 1] <= numbers[n] + 1 do
      n = n + 1
      letters[numbers[n] - from + 1] = flow.letters[numbers[n]]
    end
    call('SETRANGE', flow.nodes, from, table.concat(letters))
    n = n + 1
  end
  flow.changed = {}
end

-- What there is to do: 'ended', a node, what it came to, its value, its followers; or 'go', a node whose turn has come, and
-- the value that is handed to it; 'never', a node that will not run, and why; 'behind', a fork, and why those behind it
-- will not run, if they won't.
local function add(what, flow, number, how, value, followers)
  last = last + 1
  work[last] = {what, flow, number, how, value, followers}
end

-- Notes what this script has no time for: another one sees to it (unfold.lua).
local function put_off(here, what, flow, number, how, value, at)
  if value then call('HSET', flow.key, 'p:' .. number, value) end
  pcall_('ZADD', here.prefix .. 'unfolding', at or here.at, number .. ' ' .. what .. ' ' .. (how or '-') .. ' ' .. flow.id)
  here.is_put_off = true
end

-- Cancels a range of nodes, such as all that belongs to a join: at once nothing of them starts any more; their jobs are
-- cancelled by other scripts, a page at a time.
local function cut(here, flow, from, to)
  for _, range in ipairs(flow.cut) do
    if range[1] <= from and range[2] >= to then return end
  end
  flow.cut[#flow.cut + 1] = {from, to}
  local ranges = {}
  for n, range in ipairs(flow.cut) do ranges[n] = string.format('%.0f-%.0f', range[1], range[2]) end
  call('HSET', flow.key, 'cut', table.concat(ranges, ' '))
  put_off(here, 'cut', flow, from, string.format('%.0f', to))
end

-- Tells a join that one before it has ended; cause: what that was worth, nil when it has succeeded; n: it was not needed.
local function reach_join(here, flow, number, cause, cancels)
  if cause and call('HGET', flow.key, 'x:' .. number) ~= 'f' then call('HSET', flow.key, 'x:' .. number, cause) end
  if cause and cancels then
    local from, to = number + 1, tonumber(call('HGET', flow.key, 'e:' .. number) or nil) or number
    for first_spared, last_spared in string.gmatch(call('HGET', flow.key, 'a:' .. number) or '', '(%d+)-(%d+)') do
      if from < tonumber(first_spared) then cut(here, flow, from, first_spared - 1) end
      from = last_spared + 1
    end
    if from <= to then cut(here, flow, from, to) end
  end
  flow.less[number] = (flow.less[number] or 0) + 1
end

-- The joins that were reached: counted down once for all. Those that have ended are told in their turn.
local function count_down(flow)
  for number, n in pairs(flow.less) do
    if pcall_('HINCRBY', flow.key, 'b:' .. number, -n) == 0 then
      local how, cause = call('HGET', flow.key, 'x:' .. number) or 's', nil
      -- Whose fork has let nobody go was never there itself: nobody has to clean up behind it.
      if how ~= 's' and letter_of(flow, number - 1) == 'n' then how, cause = 'n', how end
      add('ended', flow, number, how, cause, '-')
    end
  end
  flow.less = {}
end

-- Followers, word by word: number, mark, number, mark; and whether they are aside.
local read = {}
local function words_of(followers)
  local words = read[followers]
  if not words then
    words = {is_aside = string.find(followers, '~', 1, true), is_kept = string.find(followers, '[+*^]')}
    for number, mark in string.gmatch(followers, '(%d+)([+*^!]?)') do
      words[#words + 1], words[#words + 2] = tonumber(number), mark
    end
    read[followers] = words
  end
  return words
end

-- A node has ended: s f e c, or n with a cause. Tells those behind it.
local function node_ended(here, flow, number, how, value, followers, cause)
  local was = letter_of(flow, number)
  if was ~= 'o' and was ~= 'w' then return end
  set_letter(flow, number, how)
  flow.left, flow.is_changed = flow.left - 1, true
  local is_lost -- who follows: then its value is kept for them
  if followers == '-' then
    followers = call('HGET', flow.key, 'f:' .. number)
    is_lost, followers = not followers, followers or ''
  end
  local words = words_of(followers)
  cause = how ~= 's' and (cause or (how == 'c' or how == 'n') and how or 'f') or nil
  -- What was cancelled first does not fail afterwards: where a workflow has come to, it stays.
  if cause and how ~= 'n' and not words.is_aside and call('HEXISTS', flow.key, 'stopped') == 0 and
    call('HSETNX', flow.key, cause == 'c' and 'stopped' or 'failed', number) == 1 then
    flow.is_told = true
    if value then call('HSET', flow.key, 'r:' .. number, value) end
  end
  if how == 's' and value and (words.is_kept or is_lost or number == flow.result) then
    local values = flow.values
    values[#values + 1], values[#values + 2] = 'v:' .. number, value
  end
  if number == flow.result then flow.is_told = true end
  for n = 1, #words, 2 do
    local follower, mark = words[n], words[n + 1]
    if mark == '*' or mark == '^' then
      reach_join(here, flow, follower, cause, mark == '^')
    elseif mark == '!' then
      if cause and how ~= 'n' then add('go', flow, follower) else add('never', flow, follower, 'n') end
    elseif cause then
      add('never', flow, follower, cause)
    elseif mark == '' or pcall_('HINCRBY', flow.key, 'b:' .. follower, -1) == 0 then
      add('go', flow, follower, nil, mark == '' and value or nil)
    end
  end
end
