-- Removes dead letters of one queue: one of them, those before an instant, or those beyond the bounds of a runner.
--
-- KEYS  1 janitor  2 dead  3 dead-letters  4 dead-tasks
-- ARGV  1 'one', 'before' or 'bounds'
--       one:     2 id
--       before:  2 ms: those that failed earlier than that, oldest first, at most 200 or a megabyte of them
--       bounds:  2 most of them  3 ms that they stay; 0: any number, for ever. Likewise; and counted in the janitor
-- Returns how many it has removed.
-- Closes: a dead letter that is removed while somebody brings it back is in one place or gone, never both.
local bad = mistyped({KEYS[1], 'hash', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'zset'})
if bad then return bad end
local queue = {dead = KEYS[2], dead_letters = KEYS[3], dead_tasks = KEYS[4]}
if ARGV[1] == 'one' then
  local there = call('ZSCORE', queue.dead, ARGV[2]) or call('HEXISTS', queue.dead_letters, ARGV[2]) == 1
  if not there then return 0 end
  unbury(queue, ARGV[2])
  return 1
end
if ARGV[1] == 'before' then return prune(queue, 0, tonumber(ARGV[2])) end
return drop(queue, KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now())
