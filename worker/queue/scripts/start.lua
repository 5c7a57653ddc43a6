#!lua flags=allow-oom
-- T5, claimed -> running.
-- KEYS 1 job 2 run 3 lease 4 own 5 ev 6 ev:<jid> 7 deliv
-- ARGV 1 ticket 2 jid 3 lane 4 dig 5 exp ms 6 nbf ms 7 kid 8 record ttl ms 9 resume 10 actor 11 wid
--      12 mid
--      (exp, nbf 0: none; resume 1: the message belongs to an open journal, only a run elsewhere
--      stops it; 2: to a closed one, whose end is recorded unless done or failed stands there)
-- -> {OK, n, server ms} | {ALREADY, n, ms} lost reply | {GONE} the ticket was reaped
--    | {DUP_DONE, st} | {DUP_RUN} | {COLLISION, st} another body under this id
--    | {NOT_YET, nbf} park it | {CANCELLED} {EXPIRED} ended here, the ticket is cleared
local job, run, ticket = KEYS[1], KEYS[2], ARGV[1]
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at = string.format('%.0f', ms)
redis.call('XLEN', KEYS[5])
redis.call('ZCARD', KEYS[3])
if redis.call('SISMEMBER', KEYS[4], ticket) == 0 or redis.call('HEXISTS', run, ticket) == 0 then
  return {'GONE'}
end
local r = redis.call('HMGET', job, 'st', 'f', 'n', 'dig', 'cancel', 'q_at')
local st, f, n, resume = r[1], r[2], tonumber(r[3] or '0'), ARGV[9] ~= '0'
local fresh = st == 'dead' and n == 0
if st and not fresh then
  if not resume and r[4] and r[4] ~= ARGV[4] then return {'COLLISION', st} end
  if ARGV[9] ~= '1' and (st == 'done' or st == 'failed' or
    (not resume and (st == 'cancelled' or st == 'expired' or st == 'dead'))) then
    return {'DUP_DONE', st}
  end
  if st == 'running' then
    if f == ticket then return {'ALREADY', n, ms} end
    if redis.call('HEXISTS', run, f) == 1 then return {'DUP_RUN'} end
  end
end
local stop
if not resume then
  if r[5] and not fresh then stop = 'cancelled'
  elseif n == 0 and ARGV[5] ~= '0' and ms > tonumber(ARGV[5]) then stop = 'expired'
  elseif tonumber(ARGV[6]) > ms then return {'NOT_YET', ARGV[6]} end
end
if stop then redis.call('HLEN', KEYS[7]) end
if fresh then redis.call('DEL', job) end
if stop then
  redis.call('HDEL', KEYS[7], ARGV[12])
  redis.call('HSET', job, 'st', stop, 'outcome', stop, 'dig', ARGV[4], 'type', ARGV[3],
    'lane', ARGV[3], 'n', n, 'e_at', at)
  redis.call('PEXPIRE', job, ARGV[8])
  redis.call('HDEL', run, ticket)
  redis.call('ZREM', KEYS[3], ticket)
  redis.call('SREM', KEYS[4], ticket)
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', '10000', '*', 'e', 'end', 'j', ARGV[2],
    'lane', ARGV[3], 'at', at, 'st', stop, 'outcome', stop)
  if redis.call('EXISTS', KEYS[6]) == 1 then
    redis.call('XADD', KEYS[6], 'MAXLEN', '~', '500', '*', 'e', 'end', 'at', at, 'st', stop,
      'outcome', stop)
  end
  return {string.upper(stop)}
end
if resume then redis.call('HDEL', job, 'outcome', 'res', 'err', 'e_at', 'cancel') end
redis.call('HSET', job, 'st', 'running', 'f', ticket, 'n', n + 1, 'dig', ARGV[4], 'type', ARGV[3],
  'lane', ARGV[3], 'kid', ARGV[7], 'actor', ARGV[10], 'wid', ARGV[11], 's_at', at,
  'q_at', r[6] and not fresh and r[6] or at, 'pct', '0')
redis.call('PEXPIRE', job, ARGV[8])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', '10000', '*', 'e', 'started', 'j', ARGV[2],
  'lane', ARGV[3], 'at', at, 'st', 'running')
return {'OK', n + 1, ms}
