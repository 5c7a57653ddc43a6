#!lua flags=allow-oom
-- The result of an ended job outlived the time its message gave it (rt); its record stays.
-- KEYS 1 rt 2 job
-- ARGV 1 jid
-- -> {OK} | {EARLY} | {GONE}
local due = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
redis.call('HLEN', KEYS[2])
if not due then return {'GONE'} end
local t = redis.call('TIME')
if t[1] * 1000 + math.floor(t[2] / 1000) < due then return {'EARLY'} end
redis.call('HDEL', KEYS[2], 'res')
redis.call('ZREM', KEYS[1], ARGV[1])
return {'OK'}
