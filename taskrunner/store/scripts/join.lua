-- Makes the streams and groups of a worker's queues where they are missing, and notes the queues' names.
--
-- KEYS  1 queues  2 workers  then the streams
-- ARGV  1 group  then the queues' names
-- Returns the names of the queues whose stream holds something else; nothing is done for these. Each group begins at
-- the first entry, so that what is already there is seen.
-- Closes: a server that was filled before its first worker came. XGROUP CREATE by itself is refused there, and nobody
-- could drain it; after the first write of a script nothing is. And one queue's foreign data, which would keep a worker
-- from reading all its queues.
local bad = mistyped({KEYS[1], 'set', KEYS[2], 'zset'})
if bad then return bad end
insist(KEYS[2])
local foreign = {}
for s = 3, #KEYS do
  local stream, queue = KEYS[s], ARGV[s - 1]
  if mistyped({stream, 'stream'}) then
    foreign[#foreign + 1] = queue
  else
    local reply = pcall_('XGROUP', 'CREATE', stream, ARGV[1], '0', 'MKSTREAM')
    if reply.err and not string.find(reply.err, 'BUSYGROUP', 1, true) then return reply end
    call('SADD', KEYS[1], queue)
  end
end
return foreign
