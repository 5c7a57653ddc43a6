#!lua flags=allow-oom
-- T7, claimed -> delayed: nbf lies in the future, or the target is busy.
-- KEYS 1 run 2 lease 3 own 4 delay 5 delayraw 6 job 7 ev
-- ARGV 1 ticket 2 due ms 3 jid 4 lane 5 dig 6 record ttl ms 7 started: 1 takes its attempt back
-- -> {OK} | {GONE}
redis.call('ZCARD', KEYS[2])
redis.call('SCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('HLEN', KEYS[5])
redis.call('XLEN', KEYS[7])
local r = redis.call('HMGET', KEYS[6], 'st', 'f', 'n', 'q_at')
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return {'GONE'} end
local t = redis.call('TIME')
local at = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local _, _, raw = string.find(value, '^[^|]*|[^|]*|(.*)$')
redis.call('HSET', KEYS[5], ARGV[1], raw)
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
local st, mine = r[1], ARGV[7] == '1' and r[2] == ARGV[1]
if not st or st == 'queued' or st == 'delayed' or st == 'lost' or st == 'retry' or mine or
  (st == 'dead' and (r[3] or '0') == '0') then
  local n = tonumber(r[3] or '0')
  if mine and n > 0 then n = n - 1 end
  redis.call('HSET', KEYS[6], 'st', 'delayed', 'dig', ARGV[5], 'type', ARGV[4], 'lane', ARGV[4],
    'n', n, 'q_at', r[4] or at)
  redis.call('PEXPIRE', KEYS[6], ARGV[6])
end
return {'OK'}
