-- Put in front of the scripts by which somebody asks to be told of a job that lives.
local function wish(watchers, id, channel)
  local channels = call('HGET', watchers, id) or ''
  if not string.find(' ' .. channels .. ' ', ' ' .. channel .. ' ', 1, true) then
    call('HSET', watchers, id, channels == '' and channel or channels .. ' ' .. channel)
  end
end
