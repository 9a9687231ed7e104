-- Put in front of the scripts that end jobs, behind _nodes.lua: jobs that have ended and are nodes of workflows, and jobs
-- whose turn has come.
--
-- An item is an array: number, followers, partition of the job ('' here), lane, operations, id, task, its letter before and
-- after the time of its dispatch, 1 if a value is to be handed to it in its letter, keys, operands.
--
-- here  as for the leases, and watchers: key

-- Notes for which node of which workflow a job stands; text: see note_ends.
local function add_link(here, id, text)
  local links = here.prefix .. 'followers'
  local others = pcall_('HGET', links, id)
  pcall_('HSET', links, id, type(others) == 'string' and others .. '\n' .. text or text)
end

local linked = {} -- followers as they stand in a link
local function link_of(flow, number, followers, partition)
  local text = linked[followers]
  if not text then
    text = followers == '' and '_' or string.gsub(followers, ' ', ',')
    linked[followers] = text
  end
  return number .. ' ' .. (partition or '.') .. ' ' .. text .. ' ' .. flow.id
end

-- Says something to another partition. Returns false where strangers' data is in the way.
local function send(here, partition, kind, body, workflow)
  local sent = pcall_('XADD', here.prefix .. 'outbox:' .. partition, '*', kind, body, 'workflow', workflow)
  if type(sent) ~= 'string' then return false end
  pcall_('PUBLISH', here.channel, 'outbox')
  return true
end

-- A letter as it goes to the stream: with the time of its dispatch, which is now, and what the one before it came to.
local stamped -- the time of this script, as text
local function addressed(item, at, value)
  local rest = item[9]
  stamped = stamped or string.format('%.0f', at)
  if item[10] ~= '1' then return item[8] .. stamped .. rest end
  local border = string.find(rest, '\n', 1, true) -- behind ..."p":0}]
  value = value or ''
  return item[8] .. stamped .. string.sub(rest, 1, border - 4) .. #value .. '}]\n' .. value .. string.sub(rest, border + 1)
end

-- The queue of a job that goes to the stream; nil where strangers' data stands.
local function open_queue(here, name)
  local queue = queue_named(here.prefix, name)
  if queue.is_open == nil then
    local kinds = {}
    for f = 1, #FIELDS do kinds[2 * f - 1], kinds[2 * f] = queue[FIELDS[f]], TYPES[FIELDS[f]] end
    queue.is_open = mistyped(kinds) == nil
  end
  return queue.is_open and queue or nil
end

-- What a job that has ended came to, from its outcome: s f e c, and the value that is passed on, or its record.
local HOW = {[115] = 's', [102] = 'f', [101] = 'e', [99] = 'c'} -- ["s",...
local function outcome_of(record)
  local how = HOW[string.byte(record, 3) or 0] or 'f'
  return how, how == 's' and string.sub(record, (string.find(record, '\n', 1, true) or 0) + 1) or record
end

-- The same of another job that a node stands for from the beginning, as that one was here before and has ended.
local function outcome_before(here, other, item)
  local record = pcall_('GET', here.prefix .. 'job:' .. other)
  if type(record) ~= 'string' then
    local why = 'it stands for job ' .. other .. ', which ended before, and nobody knows any more how'
    record = cjson.encode({'f', item[7], item[4], 0, here.at, here.at, 0, {'Duplicate', why, '', 'duplicate'}}) .. '\n'
  end
  return outcome_of(record)
end

-- Jobs that have come into the stream, and are not yet in the books: their live records and links.
local lives, links = {}, {}
local function keep_books(here)
  if #lives > 0 then call('HSET', here.live, unpack(lives)) end
  if #links > 0 then pcall_('HSET', here.prefix .. 'followers', unpack(links)) end
  lives, links = {}, {}
end

-- A job whose turn has come. Returns false when it can't be now.
local function let_start(here, flow, item, value)
  local number, followers, partition, id = tonumber(item[1]), item[2], item[3], item[6]
  local letter = addressed(item, here.at, value)
  lets, weight = lets + (item[5] == 't' and 1 or 2), weight + #letter -- seats and unique keys take as long again
  if partition ~= '' then
    local there = {unpack(item)}
    there[8], there[9] = letter, ''
    if not send(here, partition, 'start', cmsgpack.pack(there), flow.id) then return false end
    call('HSET', flow.key, 'q:' .. number, partition)
    set_letter(flow, number, 'o')
    return true
  end
  local queue = open_queue(here, item[4])
  if not queue then return false end
  if item[5] == 't' then
    local entry = call('XADD', queue.stream, '*', 't1', letter)
    lives[#lives + 1], lives[#lives + 2] = id, 'q ' .. queue.name .. ' ' .. entry
    links[#links + 1], links[#links + 2] = id, link_of(flow, item[1], followers)
    set_letter(flow, number, 'o')
    count(queue, item[7])
    if #lives >= 200 then keep_books(here) end
    return true
  end
  keep_books(here)
  set_letter(flow, number, 'o')
  source.keys, source.k, source.operands, source.o = item[11] or {}, 0, item[12] or {}, 0
  local other = take(here, queue, item[5], {id = id, task = item[7], letter = letter, marks = ''})
  queue.is_new = true -- it may be one that nobody has heard of, also if the job waits for its time or a seat there
  if other and other ~= id then pcall_('HSET', flow.jobs, number, other) end
  if other and not alive(here, other) then -- an id of the user's that has been here before, and ended
    local how, passed = outcome_before(here, other, item)
    add('ended', flow, number, how, passed, followers)
  else
    add_link(here, other or id, link_of(flow, item[1], followers))
  end
  return true
end

-- A job that will never run.
local function never_start(here, flow, item, cause)
  lets = lets + 1
  node_ended(here, flow, tonumber(item[1]), 'n', nil, item[2], cause)
end

-- The items of a chunk; none where somebody has deleted or damaged it: audit_workflows.lua ends those that were in it.
local function items_in(blob)
  local ok, items = pcall(cmsgpack.unpack, blob or '')
  if not ok or type(items) ~= 'table' then return {} end
  for n = 1, #items do
    if type(items[n]) ~= 'table' or not tonumber(items[n][1]) then return {} end
  end
  return items
end

local function item_in(blob)
  local ok, item = pcall(cmsgpack.unpack, blob)
  return ok and type(item) == 'table' and #item >= 10 and tonumber(item[1]) and item or nil
end

-- What a node that waited was kept as; its letter says that it waits no more.
local function forget(flow, number)
  local gone = flow.gone
  gone[#gone + 1], gone[#gone + 2] = 'i:' .. number, 'p:' .. number
end

local DO = {}

function DO.ended(here, flow, number, how, value, followers)
  if how == 'n' then return node_ended(here, flow, number, how, nil, followers, value) end -- why, in place of a value
  node_ended(here, flow, number, how, value, followers)
end

function DO.go(here, flow, number, how, value)
  if is_cut(flow, number) then return DO.never(here, flow, number, 'c') end
  local blob = call('HGET', flow.key, 'i:' .. number)
  if letter_of(flow, number) ~= 'w' then return end
  if blob then
    local item = item_in(blob)
    value = value or call('HGET', flow.key, 'p:' .. number) or nil
    if not item then
      add('ended', flow, number, 'f', nil, '-') -- somebody has damaged it
    elseif let_start(here, flow, item, value) then
      forget(flow, number)
    else
      put_off(here, 'go', flow, number, nil, value, here.at + 5000) -- until the strangers' data is gone
    end
  elseif call('HEXISTS', flow.key, 'c:' .. number) == 0 then
    add('ended', flow, number, 'f', nil, '-') -- or deleted
  else
    set_letter(flow, number, 's')
    flow.left, flow.is_changed = flow.left - 1, true
    add('behind', flow, number, '-')
  end
end

function DO.never(here, flow, number, cause)
  local blob = call('HGET', flow.key, 'i:' .. number)
  if letter_of(flow, number) ~= 'w' then return end
  if blob then
    forget(flow, number)
    never_start(here, flow, item_in(blob) or {number, '-'}, cause)
  else
    set_letter(flow, number, 'n')
    flow.left, flow.is_changed = flow.left - 1, true
    add('behind', flow, number, cause)
  end
end

-- A chunk of those behind a fork; how: '-', they start, or why they never will.
function DO.behind(here, flow, number, how)
  local field = 'c:' .. number
  local nth, past = string.match(call('HGET', flow.key, field) or '0 0', '^(%d+) (%d+)$')
  nth, past = tonumber(nth), tonumber(past)
  if nth >= past then
    for follower, mark in string.gmatch(call('HGET', flow.key, 'f:' .. number) or '', '(%d+)([*^])') do
      reach_join(here, flow, tonumber(follower), how ~= '-' and how or nil, mark == '^')
    end
    return
  end
  local chunk = field .. ':' .. string.format('%.0f', nth)
  local items = items_in(call('HGET', flow.key, chunk))
  local numbers, strange = {}, {}
  for n = 1, #items do numbers[n] = tonumber(items[n][1]) end
  read_letters(flow, numbers)
  for n = 1, #items do
    local item = items[n]
    if letter_of(flow, numbers[n]) ~= 'w' then
      -- it was seen to before somebody's data was in the way
    elseif #item == 1 then -- a fork: its own chunks come in their turn
      if how == '-' then add('go', flow, tonumber(item[1])) else add('never', flow, tonumber(item[1]), how) end
    elseif how ~= '-' or is_cut(flow, tonumber(item[1])) then
      never_start(here, flow, item, how ~= '-' and how or 'c')
    elseif not let_start(here, flow, item) then
      strange[#strange + 1] = item
    end
  end
  if #strange == 0 then
    call('HDEL', flow.key, chunk)
    call('HSET', flow.key, field, string.format('%.0f %.0f', nth + 1, past))
    add('behind', flow, number, how)
  else
    call('HSET', flow.key, chunk, cmsgpack.pack(strange))
    put_off(here, 'behind', flow, number, how, nil, here.at + 5000)
  end
end

-- Does something with a node. What is damaged is left to audit_workflows.lua, as the script has written much by now; the
-- server's log tells of it.
local function attempt(act, ...)
  local ok, problem = pcall(act, ...)
  if not ok then
    redis.log(redis.LOG_WARNING, 'taskrunner: ' .. tostring(type(problem) == 'table' and problem.err or problem))
  end
end

-- Jobs have ended: their nodes have too. records[n] is what is kept of the end of ids[n], or nil, and then hows[n] tells how
-- it ended. A link is: number of the node, partition of its workflow ('.': this one), followers, workflow.
local said = {} -- what links say behind their numbers: partition, followers, workflow; those of a group all say the same
local function read_link(link)
  local blank = string.find(link, ' ', 1, true) or 0
  local rest = string.sub(link, blank + 1)
  local words = said[rest]
  if words == nil then
    local partition, followers, id = string.match(rest, '^([.%d]+) (%S+) (.*)$')
    words = partition and {partition, followers == '_' and '' or (string.gsub(followers, ',', ' ')), id} or false
    said[rest] = words
  end
  return tonumber(string.sub(link, 1, blank - 1)), words
end

local function note_ends(here, ids, hows, records)
  local key, gone = here.prefix .. 'followers', {}
  local found, ends = pcall_('HMGET', key, unpack(ids)), {}

  -- Returns false when it could not be told; then audit_workflows.lua comes across the link.
  local function note(link, how, value)
    local number, words = read_link(link)
    if not (number and words) then return true end
    local partition, followers, id = words[1], words[2], words[3]
    if partition ~= '.' then
      return send(here, partition, 'ended', cmsgpack.pack({tostring(number), how, value or '', value and '1' or '0',
        followers}), id)
    end
    local flow = flow_of(here, id)
    if flow then ends[#ends + 1] = {flow, number, how, value, followers} end
    return true
  end

  for n = 1, found.err and 0 or #ids do
    local links = found[n]
    if links then
      local how, value, is_told = hows[n], nil, true
      if records[n] then how, value = outcome_of(records[n]) end
      if string.find(links, '\n', 1, true) then
        for link in string.gmatch(links, '[^\n]+') do is_told = note(link, how, value) and is_told end
      else
        is_told = note(links, how, value)
      end
      if is_told then gone[#gone + 1] = ids[n] end
    end
  end
  if #gone > 0 then call('HDEL', key, unpack(gone)) end
  local by_flow = {}
  for n = 1, #ends do
    local flow = ends[n][1]
    by_flow[flow] = by_flow[flow] or {}
    by_flow[flow][#by_flow[flow] + 1] = ends[n][2]
  end
  for flow, numbers in pairs(by_flow) do read_letters(flow, numbers) end
  for n = 1, #ends do
    local one = ends[n]
    attempt(node_ended, here, one[1], one[2], one[3], one[4], one[5])
  end
end

-- Tells who waits for a workflow that it may have come to something.
local function tell(here, flow)
  local channels = pcall_('HGET', here.watchers, flow.id)
  if type(channels) ~= 'string' then return end
  call('HDEL', here.watchers, flow.id)
  for one in string.gmatch(channels, '%S+') do pcall_('PUBLISH', one, flow.id) end
end

-- Lets those go on that waited for what has ended: what a script does after all jobs have ended, and before those go who
-- are next in line.
local function let_followers_go(here)
  repeat
    while first <= last do
      local one = work[first]
      work[first], first = nil, first + 1
      if is_full() and (one[1] == 'go' or one[1] == 'never' or one[1] == 'behind') then
        put_off(here, one[1], one[2], one[3], one[4], one[5])
      else
        attempt(DO[one[1]], here, one[2], one[3], one[4], one[5], one[6])
      end
    end
    for _, flow in pairs(flows) do
      if flow then count_down(flow) end
    end
  until first > last
  keep_books(here)
  for _, queue in pairs(named) do
    if queue.total or queue.is_new then count_in(here, queue) end
  end
  for _, flow in pairs(flows) do
    if flow then
      flow.is_told = flow.is_told or flow.is_watched and #flow.changed > 0
      write_letters(flow)
      if #flow.values > 0 then call('HSET', flow.key, unpack(flow.values)) end
      if #flow.gone > 0 then call('HDEL', flow.key, unpack(flow.gone)) end
    end
    if flow and flow.is_changed then
      call('HSET', flow.key, 'left', string.format('%.0f', flow.left))
      if flow.left == 0 then
        local ttl = tonumber(call('HGET', flow.key, 'ttl') or nil)
        ttl = string.format('%.0f', ttl and ttl >= 1 and ttl < 1e13 and ttl or 86400000)
        for _, key in ipairs({flow.key, flow.nodes, flow.jobs}) do call('PEXPIRE', key, ttl) end
        pcall_('ZREM', here.prefix .. 'workflows', flow.id)
        flow.is_told = true
      end
    end
    if flow and flow.is_told then tell(here, flow) end
  end
  flows = {}
  if here.is_put_off and not here.is_unfolding then pcall_('PUBLISH', here.channel, 'unfold') end
end
