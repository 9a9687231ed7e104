-- Reads how a workflow stands, and asks to be told on a channel when it may have come to something.
--
-- KEYS  1 workflow  2 its nodes  3 its jobs  4 watchers
-- ARGV  1 id  2 channel, '' for none  3 '1': it is to hear of every change of a node
-- Returns {head, left, failed, stopped, nodes, jobs}; nil when it is unknown.
-- Closes: the workflow that ends between the look and the wish.
local bad = mistyped({KEYS[1], 'hash', KEYS[2], 'string', KEYS[3], 'hash'})
if bad then return bad end
local facts = call('HMGET', KEYS[1], 'head', 'left', 'failed', 'stopped')
local states = call('GET', KEYS[2])
if not facts[1] or not facts[2] or not states then return nil end
if ARGV[2] ~= '' and tonumber(facts[2]) > 0 then
  if ARGV[3] == '1' then call('HSET', KEYS[1], 'watched', 1) end
  local channels = call('HGET', KEYS[4], ARGV[1]) or ''
  if not string.find(' ' .. channels .. ' ', ' ' .. ARGV[2] .. ' ', 1, true) then
    call('HSET', KEYS[4], ARGV[1], channels == '' and ARGV[2] or channels .. ' ' .. ARGV[2])
  end
end
return {facts[1], facts[2], facts[3] or '', facts[4] or '', states, call('HGETALL', KEYS[3])}
