#!lua flags=allow-oom
-- T11, claimed|running -> queued again, or dead over the limit of lost deliveries. The message is
-- counted here, before anybody decodes it: one that crashes the decoder is stopped too.
-- KEYS 1 lease 2 run 3 own:<wid of the lost one> 4 deliv 5 q 6 dead 7 deadraw 8 deadinfo 9 stat
-- ARGV 1 ticket 2 score 3 mid 4 limit (0: none) 5 deadinfo
-- -> {QUEUED, lost deliveries} | {DEAD, lost deliveries} | {CHANGED} it was extended or taken
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local value = redis.call('HGET', KEYS[2], ARGV[1])
local count = tonumber(redis.call('HGET', KEYS[4], ARGV[3]) or '0')
redis.call('SCARD', KEYS[3])
redis.call('LLEN', KEYS[5])
redis.call('ZCARD', KEYS[6])
redis.call('HLEN', KEYS[7])
redis.call('HLEN', KEYS[8])
redis.call('HLEN', KEYS[9])
if not count then return redis.error_reply('ERR deliv is not a number') end
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return {'CHANGED'} end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('HINCRBY', KEYS[9], 'lost', 1)
if not value then return {'CHANGED'} end
redis.call('HDEL', KEYS[2], ARGV[1])
count = count + 1
local _, _, raw = string.find(value, '^[^|]*|[^|]*|(.*)$')
local limit = tonumber(ARGV[4])
if limit > 0 and count > limit then
  local t = redis.call('TIME')
  redis.call('ZADD', KEYS[6], t[1] * 1000 + math.floor(t[2] / 1000), ARGV[1])
  redis.call('HSET', KEYS[7], ARGV[1], raw)
  redis.call('HSET', KEYS[8], ARGV[1], ARGV[5])
  redis.call('HDEL', KEYS[4], ARGV[3])
  redis.call('HINCRBY', KEYS[9], 'dead', 1)
  redis.call('HINCRBY', KEYS[9], 'poison', 1)
  return {'DEAD', count}
end
redis.call('HSET', KEYS[4], ARGV[3], count)
redis.call('RPUSH', KEYS[5], raw)
return {'QUEUED', count}
