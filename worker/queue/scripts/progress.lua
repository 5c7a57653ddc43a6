#!lua flags=allow-oom
-- Progress of a running job, guarded by its ticket.
-- KEYS 1 job 2 ev:<jid>
-- ARGV 1 ticket 2 e: progress|step 3 pct 4 step 5 msg 6 done 7 total 8 rate 9 eta 10 ttl ms
-- -> {OK} | {CANCELLED} recorded, and somebody wants it to stop | {STALE} | {GONE} no record
local r = redis.call('HMGET', KEYS[1], 'f', 'st', 'cancel')
redis.call('XLEN', KEYS[2])
if not r[1] then return {'GONE'} end
if r[1] ~= ARGV[1] then return {'STALE'} end
if r[2] ~= 'running' and r[2] ~= 'lost' then return {'STALE'} end
local t = redis.call('TIME')
local at = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('HSET', KEYS[1], 'pct', ARGV[3], 'step', ARGV[4], 'msg', ARGV[5], 'done', ARGV[6],
  'total', ARGV[7], 'rate', ARGV[8], 'eta', ARGV[9], 'p_at', at)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '500', '*', 'e', ARGV[2], 'at', at, 'pct', ARGV[3],
  'step', ARGV[4], 'done', ARGV[6], 'total', ARGV[7], 'rate', ARGV[8], 'eta', ARGV[9],
  'msg', ARGV[5], 'st', 'running')
redis.call('PEXPIRE', KEYS[2], ARGV[10])
return {r[3] and 'CANCELLED' or 'OK'}
