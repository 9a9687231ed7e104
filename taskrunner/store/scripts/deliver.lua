-- Applies what another partition says of workflows, once: jobs that start here, jobs that have ended there.
--
-- KEYS  1 live  2 watchers  3 janitor  4 queues  5 received
-- ARGV  1 prefix of the partition's keys: the workflows and all of their jobs here are in the same slot  2 wake channel
--       3 ms that an outcome is kept, if a job itself says nothing of it  4 '1': finished entries leave the stream
--       5 ms that a cancelled run which goes on keeps its seats  6 number of the other partition
--       then per message: its id, its kind, its body, the workflow; as they stand in the outbox there, without a gap
--         start   an item of a job (_follow.lua); known: a node and the id of the job that it stands for
--         ended   number, how, value, '1' if there is a value, followers; cancel: the id of a job
--         look    a node and the id of its job: is it here?  lost: number, how, record, id, when it is not
-- Returns the id of the last message that has been applied, by now or by somebody before.
-- Closes: two couriers with the same messages, and one that died before it could delete them: what is not beyond the last
-- one that was received is left alone.
local bad = mistyped({KEYS[1], 'hash', KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'set', KEYS[5], 'hash',
  ARGV[1] .. 'outbox:' .. ARGV[6], 'stream'}) -- for the answers
if bad then return bad end
local here = {live = KEYS[1], watchers = KEYS[2], janitor = KEYS[3], queues = KEYS[4], prefix = ARGV[1], channel = ARGV[2],
  usual = ARGV[3], leave = ARGV[4] == '1', reservation = tonumber(ARGV[5]), at = now()}
local source_partition = ARGV[6]
local received = string.match(call('HGET', KEYS[5], source_partition) or '', '^%d+%-%d+$') or '0-0'
call('HDEL', KEYS[5], '') -- a full server, too, is told what has ended (insist)

local function answer(kind, body, workflow) send(here, source_partition, kind, body, workflow) end

local RECEIVE = {}

function RECEIVE.start(body, workflow)
  local item = cmsgpack.unpack(body)
  local number, followers, id, flow = item[1], item[2], item[6], {id = workflow}
  local queue = open_queue(here, item[4])
  if not queue then return false end
  source.keys, source.k, source.operands, source.o = item[11] or {}, 0, item[12] or {}, 0
  local other = take(here, queue, item[5], {id = id, task = item[7], letter = item[8], marks = ''})
  if other and other ~= id then answer('known', cmsgpack.pack({number, other}), workflow) end
  if other and not alive(here, other) then
    local how, value = outcome_before(here, other, item)
    answer('ended', cmsgpack.pack({number, how, value, '1', followers}), workflow)
  else
    add_link(here, other or id, link_of(flow, number, followers, source_partition))
  end
  return true
end

function RECEIVE.ended(body, workflow)
  local said, flow = cmsgpack.unpack(body), flow_of(here, workflow)
  if flow then add('ended', flow, tonumber(said[1]), said[2], said[4] == '1' and said[3] or nil, said[5]) end
  return true
end

function RECEIVE.known(body, workflow)
  local said, flow = cmsgpack.unpack(body), flow_of(here, workflow)
  if flow then pcall_('HSET', flow.jobs, said[1], said[2]) end
  return true
end

function RECEIVE.look(body, workflow)
  local asked = cmsgpack.unpack(body)
  local number, id = asked[1], asked[2]
  local links = pcall_('HGET', here.prefix .. 'followers', id)
  links = type(links) == 'string' and links or ''
  if call('HEXISTS', here.live, id) == 0 then
    local record = pcall_('GET', here.prefix .. 'job:' .. id)
    record = type(record) == 'string' and string.sub(record, 1, 1) == '[' and record or cjson.encode({'f', '', '', 0, 0,
      here.at, 0, {'Orphaned', 'it was deleted, by somebody or by eviction', '', 'orphaned'}}) .. '\n'
    if links ~= '' then
      note_ends(here, {id}, {'f'}, {record})
    else
      local how, value = outcome_of(record)
      answer('lost', cmsgpack.pack({number, how, value, id}), workflow)
    end
  else
    for line in string.gmatch(links, '[^\n]+') do
      local its, partition, name = string.match(line, '^(%d+) (%S+) %S+ (.*)$')
      if its == number and partition == source_partition and name == workflow then return true end
    end
    add_link(here, id, link_of({id = workflow}, number, '-', source_partition))
  end
  return true
end

-- Not if it has another id by now: what was said of that one came before.
function RECEIVE.lost(body, workflow)
  local said, flow = cmsgpack.unpack(body), flow_of(here, workflow)
  local id = flow and pcall_('HGET', flow.jobs, said[1])
  if id == said[4] or id == false and workflow .. '.' .. said[1] == said[4] then
    add('ended', flow, tonumber(said[1]), said[2], said[3], '-')
  end
  return true
end

function RECEIVE.cancel(id)
  cancel_by_id(here, id)
  return true
end

for n = 7, #ARGV, 4 do
  if beyond(ARGV[n], received) then
    -- Where strangers' data is in the way it is tried again; a message that is damaged, or not ours, is dropped.
    local receive = RECEIVE[ARGV[n + 1]]
    local ok, done = true, true
    if receive then ok, done = pcall(receive, ARGV[n + 2], ARGV[n + 3]) end
    if ok and not done then break end
    received = ARGV[n]
    call('HSET', KEYS[5], source_partition, received)
  end
end
let_followers_go(here)
let_next_go(here)
return received
