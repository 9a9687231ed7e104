-- Begins a workflow: from now on it is there, as a whole, and its first node goes.
--
-- KEYS  1 batch  2 live  3 watchers  4 janitor  5 queues  6 workflow  7 its nodes  8 its jobs  9 workflows  10 staged
-- ARGV  1 batch number  2 seconds to remember it  3 prefix of the partition's keys: the followers, and the queues, leases and
--         unique keys of its jobs are in the same slot  4 wake channel  5 id  6 how many nodes it has
--       7 how many fields were staged of it, 0: all of it is here  8 how many pairs of its jobs follow  9 a token of this dispatch
--       then these pairs: node, id of its job where that is the user's; then fields and values of the workflow
-- Returns '1'; '2': it has begun, and is so large that the rest is put off; '0': a workflow of that id is known;
-- 'late': what was staged is gone.
-- Closes: half a workflow that runs, whoever dies on the way; the same one twice after a lost reply.
local past = replay(KEYS[1], ARGV[1], ARGV[2])
if past then return past end
local bad = mistyped({KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'hash', KEYS[5], 'set', KEYS[6], 'hash', KEYS[7], 'string',
  KEYS[8], 'hash', KEYS[9], 'zset', KEYS[10], 'hash', ARGV[3] .. 'followers', 'hash',
  ARGV[3] .. 'unfolding', 'zset'})
if bad then return bad end
local here = {live = KEYS[2], watchers = KEYS[3], janitor = KEYS[4], queues = KEYS[5], prefix = ARGV[3], channel = ARGV[4],
  at = now()}
local id, size, staged, names = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local NAMES = 2000

local function begin()
  if call('EXISTS', KEYS[6]) == 1 then
    call('DEL', KEYS[10])
    if call('HGET', KEYS[6], 'token') ~= ARGV[9] then return '0' end
    put_off(here, 'go', {key = KEYS[6], id = id}, 0) -- ours, and we came no further: a script can be cut in the middle
    return '2'
  end
  if staged > 0 then
    if call('HLEN', KEYS[10]) ~= staged then return 'late' end
  end
  call('SET', KEYS[7], string.rep('w', size)) -- first: a full server refuses it, and would none of what follows
  if staged > 0 then
    call('RENAME', KEYS[10], KEYS[6])
    call('PERSIST', KEYS[6])
  end
  call('DEL', KEYS[8])
  call('HSET', KEYS[6], 'left', size, 'token', ARGV[9], unpack(ARGV, 10 + 2 * names))
  for from = 10, 9 + 2 * names, NAMES do -- Lua hands on no more than some thousand values at once
    call('HSET', KEYS[8], unpack(ARGV, from, math.min(from + NAMES - 1, 9 + 2 * names)))
  end
  call('ZADD', KEYS[9], here.at, id)
  DO.go(here, flow_of(here, id), 0)
  let_followers_go(here)
  let_next_go(here)
  return here.is_put_off and '2' or '1'
end

local reply = begin()
call('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'EX', ARGV[2])
return reply
