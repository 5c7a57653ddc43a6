#!lua flags=allow-oom
-- T9 and T13, running|lost -> done|failed|cancelled: record, result, events and the message's end
-- in one step. An absent record (FLUSHALL) is written anew with orphan=1.
-- KEYS 1 job 2 run 3 lease 4 own 5 deliv 6 ev 7 ev:<jid> 8 stat 9 rt (only with ARGV 11)
-- ARGV 1 ticket 2 jid 3 lane 4 mid 5 st 6 outcome 7 res 8 err 9 ttl ms 10 dig
--      11 ms that res is kept, 0: as long as the record
-- -> {OK} | {ALREADY, st} | {STALE} another delivery owns the job; only this ticket is cleared
local job, ticket, st = KEYS[1], ARGV[1], ARGV[5]
if st ~= 'done' and st ~= 'failed' and st ~= 'cancelled' then
  return redis.error_reply('ERR st is not done, failed or cancelled')
end
local r = redis.call('HMGET', job, 'st', 'f')
local lost = redis.call('HLEN', KEYS[5])
redis.call('HLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('SCARD', KEYS[4])
redis.call('XLEN', KEYS[6])
redis.call('HLEN', KEYS[8])
local seen = redis.call('XLEN', KEYS[7]) > 0
local keep = tonumber(ARGV[11])
if keep > 0 then redis.call('ZCARD', KEYS[9]) end
local reply
if r[1] and r[2] ~= ticket then reply = {'STALE'}
elseif r[1] and r[1] ~= 'running' and r[1] ~= 'lost' then reply = {'ALREADY', r[1]} end
redis.call('HDEL', KEYS[2], ticket)
redis.call('ZREM', KEYS[3], ticket)
redis.call('SREM', KEYS[4], ticket)
if reply then return reply end
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at = string.format('%.0f', ms)
if r[1] then
  redis.call('HSET', job, 'st', st, 'outcome', ARGV[6], 'res', ARGV[7], 'err', ARGV[8], 'e_at', at,
    'pct', st == 'done' and '100' or (redis.call('HGET', job, 'pct') or '0'))
else
  redis.call('HSET', job, 'st', st, 'outcome', ARGV[6], 'res', ARGV[7], 'err', ARGV[8], 'e_at', at,
    'f', ticket, 'n', '1', 'dig', ARGV[10], 'type', ARGV[3], 'lane', ARGV[3], 'orphan', '1')
end
redis.call('PEXPIRE', job, ARGV[9])
if keep > 0 then redis.call('ZADD', KEYS[9], ms + keep, ARGV[2]) end
if lost > 0 then redis.call('HDEL', KEYS[5], ARGV[4]) end
redis.call('XADD', KEYS[6], 'MAXLEN', '~', '10000', '*', 'e', 'end', 'j', ARGV[2], 'lane', ARGV[3],
  'at', at, 'st', st, 'outcome', ARGV[6])
if seen then
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', '500', '*', 'e', 'end', 'at', at, 'st', st,
    'outcome', ARGV[6])
  redis.call('PEXPIRE', KEYS[7], ARGV[9])
end
redis.call('HINCRBY', KEYS[8], ARGV[6], 1)
return {'OK'}
