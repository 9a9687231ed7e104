-- Corrects the counts of unsettled jobs, from a count of the entries in the stream.
--
-- KEYS  1 stream  2 waiting
-- ARGV  1 how many entries there were  2 the stream's last id  then pairs (task, entries of it)
-- Returns how many counts were wrong; -1 when entries have come or gone since they were counted.
-- Closes: the count that is out of date before it is written.
local last
local info = call('XINFO', 'STREAM', KEYS[1])
for n = 1, #info, 2 do
  if info[n] == 'last-generated-id' then last = info[n + 1] end
end
if call('XLEN', KEYS[1]) ~= tonumber(ARGV[1]) or last ~= ARGV[2] then return -1 end
local right, wrong = {}, 0
for n = 3, #ARGV, 2 do right[ARGV[n]] = ARGV[n + 1] end
local counts = call('HGETALL', KEYS[2])
for n = 1, #counts, 2 do
  local task = counts[n]
  if counts[n + 1] ~= (right[task] or '0') then
    wrong = wrong + 1
    call('HSET', KEYS[2], task, right[task] or '0')
  end
  right[task] = nil
end
for task, n in pairs(right) do
  wrong = wrong + 1
  call('HSET', KEYS[2], task, n)
end
return wrong
