#!lua flags=allow-oom
-- T14 and T15. A waiting job ends here (cancel=2), its message is a tombstone that start finds; a
-- running one is flagged (cancel=1), and its worker is told by a hint.
-- KEYS 1 job 2 ev 3 ev:<jid> 4 run
-- ARGV 1 jid 2 prefix of the hint channel 3 who says so, not verified (may be left out)
-- -> {OK, cancelled} | {OK, running} asked to stop | {ENDED, st} | {GONE} no record
local r = redis.call('HMGET', KEYS[1], 'st', 'f', 'lane', 'cancel')
local st, by = r[1], string.sub(ARGV[3] or '', 1, 128)
local function who() if by ~= '' then return 'cancel_by', by end end
redis.call('XLEN', KEYS[2])
local seen = redis.call('XLEN', KEYS[3]) > 0
if not st then return {'GONE'} end
if st == 'running' then
  local value = redis.call('HGET', KEYS[4], r[2] or '')
  redis.call('HSET', KEYS[1], 'cancel', '1', who())
  if value then
    redis.call('PUBLISH', ARGV[2] .. string.sub(value, 1, string.find(value, '|', 1, true) - 1),
      ARGV[1])
  end
  return {'OK', 'running'}
end
if st == 'cancelled' and r[4] then return {'OK', 'cancelled'} end
if st == 'done' or st == 'failed' or st == 'cancelled' or st == 'expired' or st == 'dead' then
  return {'ENDED', st}
end
local t = redis.call('TIME')
local at = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('HSET', KEYS[1], 'cancel', '2', 'st', 'cancelled', 'outcome', 'cancelled', 'e_at', at,
  who())
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'e', 'end', 'j', ARGV[1],
  'lane', r[3] or '', 'at', at, 'st', 'cancelled', 'outcome', 'cancelled')
if seen then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '500', '*', 'e', 'end', 'at', at, 'st', 'cancelled',
    'outcome', 'cancelled')
end
return {'OK', 'cancelled'}
