-- Finds unique keys whose holder is gone, and places behind them (next) whose job is, and frees them.
--
-- KEYS  1 live  then unique and next keys
-- ARGV  1 '1': free them, else only count
-- Returns how many there are.
-- Closes: a key that stays for ever because its job was lost with its letter, and nobody dispatches the same again. Every
-- job that holds a unique key has a live record, and both come and go in one script.
local gone = 0
for k = 2, #KEYS do
  local holder = pcall_('GET', KEYS[k])
  if type(holder) == 'string' and call('HEXISTS', KEYS[1], holder) == 0 then
    gone = gone + 1
    if ARGV[1] == '1' then call('DEL', KEYS[k]) end
  end
end
return gone
