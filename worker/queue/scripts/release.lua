#!lua flags=allow-oom
-- T17, claimed|running -> queued: handed back (drain, or a claim whose reply was lost). No attempt
-- is charged, no delivery counted.
-- KEYS 1 run 2 lease 3 own 4 q 5 job
-- ARGV 1 ticket
-- -> {OK} | {GONE}
redis.call('ZCARD', KEYS[2])
redis.call('SCARD', KEYS[3])
redis.call('LLEN', KEYS[4])
local r = redis.call('HMGET', KEYS[5], 'st', 'f', 'n')
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then
  redis.call('SREM', KEYS[3], ARGV[1])
  return {'GONE'}
end
local _, _, raw = string.find(value, '^[^|]*|[^|]*|(.*)$')
redis.call('RPUSH', KEYS[4], raw)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
if r[1] == 'running' and r[2] == ARGV[1] then
  redis.call('HSET', KEYS[5], 'st', 'queued', 'n', math.max(0, tonumber(r[3] or '1') - 1))
end
return {'OK'}
