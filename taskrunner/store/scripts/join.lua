-- Makes the streams and groups that a worker reads where they are missing, and tells what there is to read.
--
-- KEYS  1 queues  2 workers  3 paused  then the streams
-- ARGV  1 group  2 wake channel  then per stream: its name, and '1': make it, '0': only if it is known already
-- Returns {names of those there are, names of those of them whose stream holds something else, names that are paused};
-- nothing is done for foreign ones. Each group begins at the first entry, so that what is already there is seen.
-- Closes: a server that was filled before its first worker came. XGROUP CREATE by itself is refused there, and nobody
-- could drain it; after the first write of a script nothing is. And one queue's foreign data, which would keep a worker
-- from reading all its queues. A name that is new is told to all, else those who read the queue too would wait for their
-- next look.
local bad = mistyped({KEYS[1], 'set', KEYS[2], 'zset', KEYS[3], 'set'})
if bad then return bad end
insist(KEYS[2])
local known, foreign = {}, {}
for s = 4, #KEYS do
  local stream, name, made = KEYS[s], ARGV[2 * s - 5], ARGV[2 * s - 4] == '1'
  if made or call('SISMEMBER', KEYS[1], name) == 1 then
    known[#known + 1] = name
    if mistyped({stream, 'stream'}) then
      foreign[#foreign + 1] = name
    else
      local reply = pcall_('XGROUP', 'CREATE', stream, ARGV[1], '0', 'MKSTREAM')
      if reply.err and not string.find(reply.err, 'BUSYGROUP', 1, true) then return reply end
      if call('SADD', KEYS[1], name) == 1 then pcall_('PUBLISH', ARGV[2], 'lane') end
    end
  end
end
return {known, foreign, call('SMEMBERS', KEYS[3])}
