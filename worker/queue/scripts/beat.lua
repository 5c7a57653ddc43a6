#!lua flags=allow-oom
-- T8: extends the leases of what this worker holds and says what became of the rest.
-- KEYS 1 own 2 run 3 wk 4 wk:<wid>, then for each ticket its lease:<lane> and job:<jid>
-- ARGV 1 wid 2 lease ms 3 ttl of own and wk:<wid> in ms, 4 number of info fields, then name, value
--      of each, then the tickets
-- -> {server ms, letter, letter, ...}: o ours, g gone (reaped; stops nothing), s stale (another
--    delivery runs), c ours and cancelled
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local reply, extend = {ms}, {}
local fields = tonumber(ARGV[4]) * 2
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
for i = 5 + fields, #ARGV do
  local k = #reply * 2 + 3
  local held = redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 and
    redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1
  local r = redis.call('HMGET', KEYS[k + 1], 'f', 'cancel', 'st')
  redis.call('ZCARD', KEYS[k])
  local letter = held and 'o' or 'g'
  if r[1] and r[1] ~= ARGV[i] and r[3] == 'running' and not held then letter = 's'
  elseif held and r[1] == ARGV[i] and r[2] then letter = 'c' end
  if held then extend[#extend + 1] = {KEYS[k], ARGV[i]} end
  reply[#reply + 1] = letter
end
for i = 1, #extend do
  redis.call('ZADD', extend[i][1], 'XX', ms + tonumber(ARGV[2]), extend[i][2])
end
redis.call('ZADD', KEYS[3], ms, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ms - 10 * tonumber(ARGV[2]))
redis.call('HSET', KEYS[4], 'beat', string.format('%.0f', ms), unpack(ARGV, 5, 4 + fields))
redis.call('PEXPIRE', KEYS[4], ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[3]), 86400000))
return reply
