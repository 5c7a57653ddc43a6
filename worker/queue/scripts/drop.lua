#!lua flags=allow-oom
-- T6, claimed -> dropped: its job ended while it waited, a duplicate of one that ended (clear deliv)
-- or runs (leave it).
-- KEYS 1 run 2 lease 3 own 4 deliv
-- ARGV 1 ticket 2 mid 3 clear deliv: 1|0
-- -> {OK} | {GONE}
redis.call('ZCARD', KEYS[2])
redis.call('SCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
if ARGV[3] == '1' then redis.call('HDEL', KEYS[4], ARGV[2]) end
return {'OK'}
