#!lua flags=allow-oom
-- T10, running -> delayed: another attempt later. The caller has compared attempts and mx and
-- computed the backoff; with none left it calls finish with st=failed.
-- KEYS 1 job 2 run 3 lease 4 own 5 delay 6 delayraw 7 ev 8 ev:<jid> 9 stat
-- ARGV 1 ticket 2 jid 3 lane 4 err 5 wait ms
-- -> {OK, due ms} | {ALREADY} | {STALE} | {GONE} reaped or no record: it comes again anyway
local r = redis.call('HMGET', KEYS[1], 'st', 'f')
redis.call('ZCARD', KEYS[3])
redis.call('SCARD', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('HLEN', KEYS[6])
redis.call('XLEN', KEYS[7])
redis.call('HLEN', KEYS[9])
local seen = redis.call('XLEN', KEYS[8]) > 0
local value = redis.call('HGET', KEYS[2], ARGV[1])
if not r[1] then return {'GONE'} end
if r[2] ~= ARGV[1] then return {'STALE'} end
if r[1] ~= 'running' then return {r[1] == 'retry' and 'ALREADY' or 'STALE'} end
if not value then return {'GONE'} end
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at, due = string.format('%.0f', ms), string.format('%.0f', ms + tonumber(ARGV[5]))
local _, _, raw = string.find(value, '^[^|]*|[^|]*|(.*)$')
redis.call('HSET', KEYS[6], ARGV[1], raw)
redis.call('ZADD', KEYS[5], due, ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('HSET', KEYS[1], 'st', 'retry', 'err', ARGV[4])
redis.call('XADD', KEYS[7], 'MAXLEN', '~', '10000', '*', 'e', 'retry', 'j', ARGV[2],
  'lane', ARGV[3], 'at', at, 'st', 'retry')
if seen then
  redis.call('XADD', KEYS[8], 'MAXLEN', '~', '500', '*', 'e', 'retry', 'at', at, 'st', 'retry')
end
redis.call('HINCRBY', KEYS[9], 'retry', 1)
return {'OK', due}
