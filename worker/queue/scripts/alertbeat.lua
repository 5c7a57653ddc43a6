#!lua flags=allow-oom
-- A worker says which notices it is still delivering, and is given those whose worker is gone.
-- KEYS 1 alert:out 2 alert:test
-- ARGV 1 wid 2 lease ms 3 targets it can reach 4 most to take 5 1: a test may be taken, then the ids
-- -> {ms, id of a test or '', id, notice, id, notice, ...} the oldest first
local wid, most = ARGV[1], tonumber(ARGV[4])
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local n = redis.call('HLEN', KEYS[1])
local test = redis.call('LLEN', KEYS[2]) > 0 and ARGV[5] == '1' and redis.call('RPOP', KEYS[2]) or ''
local reply = {ms, test}
if n == 0 then return reply end
local until_ms = string.format('%.0f', ms + tonumber(ARGV[2]))
local function reachable(targets)
  for one in string.gmatch(targets, '[^,]+') do
    if not string.find(',' .. ARGV[3] .. ',', ',' .. one .. ',', 1, true) then return false end
  end
  return true
end
local mine, free = {}, {}
for i = 6, #ARGV do mine[ARGV[i]] = true end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local id, notice = all[i], all[i + 1]
  local owner, till, rest = string.match(notice, '^([^\n]*)\n(%d+)\n(.*)$')
  if not owner then
    redis.call('HDEL', KEYS[1], id)
  elseif mine[id] and owner == wid then
    redis.call('HSET', KEYS[1], id, wid .. '\n' .. until_ms .. '\n' .. rest)
  elseif not mine[id] and tonumber(till) < ms and reachable(string.match(rest, '^[^\n]*')) then
    local at = tonumber(string.match(rest, '^' .. string.rep('[^\n]*\n', 6) .. '(%d+)') or '0')
    free[#free + 1] = {at, id, wid .. '\n' .. until_ms .. '\n' .. rest}
  end
end
table.sort(free, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
for i = 1, math.min(#free, most) do
  redis.call('HSET', KEYS[1], free[i][2], free[i][3])
  reply[#reply + 1], reply[#reply + 2] = free[i][2], free[i][3]
end
return reply
