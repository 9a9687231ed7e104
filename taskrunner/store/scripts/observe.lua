-- Reads what is known of a job and how far it is, and asks to be told on a channel of what comes.
--
-- KEYS  1 record  2 live  3 watchers  4 how far it is
-- ARGV  1 id  2 group  3 prefix of the partition's keys  4 channel
-- Returns how far it is or '', then what sight() returns; nil when the job is unknown. While it lives, the channel will
-- hear its id at its end and a notice with each report.
-- Closes: the job that ends, or tells something, between the look and the wish.
local bad = mistyped({KEYS[1], 'string', KEYS[2], 'hash', KEYS[3], 'hash'})
if bad then return bad end
local seen = sight(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if not seen then return nil end
if seen[1] ~= 'ended' then wish(KEYS[3], ARGV[1], ARGV[4]) end
local told = pcall_('GET', KEYS[4])
table.insert(seen, 1, type(told) == 'string' and told or '')
return seen
