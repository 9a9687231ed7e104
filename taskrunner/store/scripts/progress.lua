-- Keeps how far runs are in the place of what their jobs told before, of jobs that are still those runs', and tells
-- whoever watches these jobs.
--
-- KEYS  1 watchers  then per report: how far the job is, stream
-- ARGV  1 group  2 consumer  3 seconds to keep it
--       then per report: entry id, delivery count, job id, notice, how far it is
-- Returns one character per report: 1 kept; 0 the token is stale, or a stranger has the key: then nothing is written.
-- Closes: a report that comes after the outcome, or of a run that has lost its job: its token fits no more. And with that
-- a key that nobody would shorten: whoever records the outcome knows of every report that was kept.
local verdicts, at = {}, string.format('%.0f', now())
for n = 1, (#KEYS - 1) / 2 do
  local key, stream, first = KEYS[2 * n], KEYS[2 * n + 1], 5 * n - 1
  local entry, kind = ARGV[first], call('TYPE', key).ok
  local rows = pcall_('XPENDING', stream, ARGV[1], entry, entry, 1, ARGV[2])
  verdicts[n] = '0'
  if (kind == 'string' or kind == 'none') and not rows.err and rows[1] and rows[1][4] == tonumber(ARGV[first + 1]) then
    call('SET', key, at .. ' ' .. ARGV[first + 4], 'EX', ARGV[3])
    verdicts[n] = '1'
    local channels = pcall_('HGET', KEYS[1], ARGV[first + 2])
    for one in string.gmatch(type(channels) == 'string' and channels or '', '%S+') do
      pcall_('PUBLISH', one, ARGV[first + 3])
    end
  end
end
return table.concat(verdicts)
