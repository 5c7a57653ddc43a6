#!lua flags=allow-oom
-- Dead letters that are too old, and the oldest of those that are too many, go for good. A few at a
-- time: called until it answers 0.
-- KEYS 1 dead 2 deadraw 3 deadinfo 4 stat
-- ARGV 1 age ms 2 most dead letters 3 most at a time
-- -> {OK, removed now}
local letters = redis.call('ZCARD', KEYS[1])
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local most = tonumber(ARGV[3])
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf',
  string.format('(%.0f', ms - tonumber(ARGV[1])), 'LIMIT', 0, most)
local over = letters - tonumber(ARGV[2])
if over > #old then
  if over > most then over = most end
  old = redis.call('ZRANGE', KEYS[1], 0, over - 1)
end
for i = 1, #old do
  redis.call('ZREM', KEYS[1], old[i])
  redis.call('HDEL', KEYS[2], old[i])
  redis.call('HDEL', KEYS[3], old[i])
end
if #old > 0 then redis.call('HINCRBY', KEYS[4], 'dead_trimmed', #old) end
return {'OK', #old}
