-- Asks for, or renews, the right to be the one runner of the fleet that evaluates the long-queue hook.
--
-- KEYS  1 leader  2 workers
-- ARGV  1 worker id  2 ms until it ends unless renewed
-- Returns 1 for the leader, 0 for everybody else.
-- Closes: a full server, where queues are long and the hook is needed.
insist(KEYS[2])
if call('GET', KEYS[1]) == ARGV[1] then
  call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
return call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
