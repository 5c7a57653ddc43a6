#!lua flags=allow-oom
-- Takes the turn to sweep and lists expired tickets. After a time in which nobody swept (outage,
-- restart, clock step) nothing is reaped for two leases: the owners may only have been cut off.
-- KEYS 1 reap, then lease:<lane> ...
-- ARGV 1 sweep ms 2 lease ms 3 most tickets a lane
-- -> {OK, index of the lane from 1, ticket, score, ...} | {TURN} another one swept | {HOLD, until}
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local sweep = tonumber(ARGV[1])
local r = redis.call('HMGET', KEYS[1], 'last', 'hold')
local last, hold = tonumber(r[1] or '0'), tonumber(r[2] or '0')
if last > ms then last = 0 end
if ms - last < sweep * 0.8 then return {'TURN'} end
local found = {'OK'}
for i = 2, #KEYS do
  local late = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '(' .. string.format('%.0f', ms),
    'WITHSCORES', 'LIMIT', 0, ARGV[3])
  for k = 1, #late, 2 do
    found[#found + 1] = i - 1
    found[#found + 1] = late[k]
    found[#found + 1] = late[k + 1]
  end
end
if ms - last > 3 * sweep then hold = ms + 2 * tonumber(ARGV[2]) end
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', ms), 'hold', string.format('%.0f', hold))
if ms < hold then return {'HOLD', hold} end
return found
