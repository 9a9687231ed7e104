-- Reads what is known of a job. Changes nothing.
--
-- KEYS  1 record  2 live
-- ARGV  1 id  2 group  3 prefix of the partition's keys
-- Returns what sight() returns.
return sight(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
