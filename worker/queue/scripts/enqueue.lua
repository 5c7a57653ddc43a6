#!lua
-- T1, absent -> queued: writes the record and pushes, in one step. Refused under maxmemory.
-- KEYS q job ev
-- ARGV 1 raw 2 jid 3 lane 4 dig 5 record ttl ms
-- -> {OK} | {EXISTS, st} same bytes were sent before | {COLLISION, st} the id has another body
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('LLEN', KEYS[1])
redis.call('XLEN', KEYS[3])
local r = redis.call('HMGET', KEYS[2], 'st', 'n', 'dig')
local st = r[1]
if st and not (st == 'dead' and (r[2] or '0') == '0') then
  return {r[3] == ARGV[4] and 'EXISTS' or 'COLLISION', st}
end
if st then redis.call('DEL', KEYS[2]) end
local at = string.format('%.0f', ms)
redis.call('HSET', KEYS[2], 'st', 'queued', 'n', '0', 'dig', ARGV[4], 'type', ARGV[3],
  'lane', ARGV[3], 'q_at', at)
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '10000', '*', 'e', 'queued', 'j', ARGV[2],
  'lane', ARGV[3], 'at', at, 'st', 'queued')
return {'OK'}
