#!lua flags=allow-oom
-- T11, second half: what the record says of a delivery that reap1 took away. A message that died
-- before its start has no record of that ticket: only its death is written then.
-- KEYS 1 job 2 ev 3 ev:<jid> 4 stat
-- ARGV 1 ticket 2 jid 3 lane 4 st: lost|dead 5 dig 6 err 7 ttl ms
-- -> {OK} | {STALE} the record speaks of another delivery, or of an end
local r = redis.call('HMGET', KEYS[1], 'st', 'f', 'dig', 'n')
redis.call('XLEN', KEYS[2])
local seen = redis.call('XLEN', KEYS[3]) > 0
local ours = r[1] == 'running' and r[2] == ARGV[1]
local early = ARGV[4] == 'dead' and (not r[1] or
  ((r[1] == 'queued' or r[1] == 'lost') and r[3] == ARGV[5]))
if not ours and not early then return {'STALE'} end
local t = redis.call('TIME')
local at = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local dead = ARGV[4] == 'dead'
redis.call('HSET', KEYS[1], 'st', ARGV[4], 'dig', ARGV[5], 'lane', ARGV[3], 'type', ARGV[3],
  'n', r[4] or '0')
redis.call('HINCRBY', KEYS[1], 'lost', 1)
if dead then
  redis.call('HSET', KEYS[1], 'err', ARGV[6], 'e_at', at, 'outcome', 'dead')
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local e = dead and 'end' or 'lost'
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'e', e, 'j', ARGV[2], 'lane', ARGV[3],
  'at', at, 'st', ARGV[4], 'outcome', dead and 'dead' or '')
if seen then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '500', '*', 'e', e, 'at', at, 'st', ARGV[4],
    'outcome', dead and 'dead' or '')
end
return {'OK'}
