#!lua flags=allow-oom
-- T12, claimed -> dead: refused before its start. The record is written only if there is none, or
-- if it waits for these very bytes; n stays 0, so that a corrected message with the id runs.
-- KEYS 1 run 2 lease 3 own 4 deliv 5 dead 6 deadraw 7 deadinfo 8 job 9 ev 10 stat 11 ev:<jid>
-- ARGV 1 ticket 2 mid 3 lane 4 deadinfo 5 jid or '' 6 record: 1|0 7 dig 8 err 9 ttl ms
--      10 most dead letters 11 reason
-- -> {OK, dead letters dropped as the oldest} | {GONE}
redis.call('ZCARD', KEYS[2])
redis.call('SCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
local letters = redis.call('ZCARD', KEYS[5])
redis.call('HLEN', KEYS[6])
redis.call('HLEN', KEYS[7])
redis.call('XLEN', KEYS[9])
redis.call('HLEN', KEYS[10])
local seen = redis.call('XLEN', KEYS[11]) > 0
local r = redis.call('HMGET', KEYS[8], 'st', 'n', 'dig')
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return {'GONE'} end
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at = string.format('%.0f', ms)
local _, _, raw = string.find(value, '^[^|]*|[^|]*|(.*)$')
redis.call('ZADD', KEYS[5], ms, ARGV[1])
redis.call('HSET', KEYS[6], ARGV[1], raw)
redis.call('HSET', KEYS[7], ARGV[1], ARGV[4])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[2])
local cut = {}
if letters + 1 > tonumber(ARGV[10]) then
  cut = redis.call('ZRANGE', KEYS[5], 0, letters - tonumber(ARGV[10]))
  for i = 1, #cut do
    redis.call('ZREM', KEYS[5], cut[i])
    redis.call('HDEL', KEYS[6], cut[i])
    redis.call('HDEL', KEYS[7], cut[i])
  end
end
if ARGV[6] == '1' and (not r[1] or (r[1] == 'queued' and r[3] == ARGV[7]) or
  (r[1] == 'dead' and (r[2] or '0') == '0')) then
  redis.call('HSET', KEYS[8], 'st', 'dead', 'outcome', 'dead', 'n', '0', 'dig', ARGV[7],
    'lane', ARGV[3], 'err', ARGV[8], 'e_at', at)
  redis.call('PEXPIRE', KEYS[8], ARGV[9])
  if seen then
    redis.call('XADD', KEYS[11], 'MAXLEN', '~', '500', '*', 'e', 'end', 'at', at, 'st', 'dead',
      'outcome', ARGV[11])
  end
end
redis.call('XADD', KEYS[9], 'MAXLEN', '~', '10000', '*', 'e', 'end', 'j', ARGV[5], 'lane', ARGV[3],
  'at', at, 'st', 'dead', 'outcome', ARGV[11])
redis.call('HINCRBY', KEYS[10], 'dead', 1)
if ARGV[11] == 'poison' then redis.call('HINCRBY', KEYS[10], 'poison', 1) end
return {'OK', #cut}
