-- Trims a stream whose finished entries are kept as an audit trail: by age, and never past an unfinished entry.
--
-- KEYS  1 stream  2 rates
-- ARGV  1 group  2 ms that a finished entry is kept  3 most entries of one call
-- Returns how many entries were removed; the caller goes on until that is none.
-- Closes: XTRIM itself would drop what nobody has read yet, and all that is old in one go.
local rows = call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1)
local limit = string.format('%.0f', now() - tonumber(ARGV[2]))
local oldest = rows[1] and rows[1][1]
for _, group in ipairs(groups_of(KEYS[1])) do
  if group.name == ARGV[1] then oldest = oldest or group.last end
end
if tonumber(string.match(oldest, '^(%d+)')) < tonumber(limit) then limit = oldest end
-- Only XTRIM with ~ takes a LIMIT, and removes whole nodes of a hundred entries; what is left of one is cut off exactly.
local removed = call('XTRIM', KEYS[1], 'MINID', '~', limit, 'LIMIT', ARGV[3])
if removed == 0 then removed = call('XTRIM', KEYS[1], 'MINID', limit) end
if removed > 0 then call('HINCRBY', KEYS[2], 'kept', -removed) end
return removed
