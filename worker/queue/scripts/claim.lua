#!lua flags=allow-oom
-- T3 and T4, delayed -> queued -> claimed: up to n messages, one write of each kind for all.
-- KEYS 1 q 2 q:hi 3 lease 4 run 5 own 6 ctr 7 deliv 8 delay 9 delayraw 10 pause 11 dead
--      12 deadraw 13 deadinfo 14 ev 15 stat
-- ARGV 1 lane 2 wid 3 n 4 lease ms 5 largest message in bytes
-- -> {OK|EMPTY|PAUSED, server ms, ms until the next delayed one is due or -1, HLEN deliv,
--     ticket, raw, ticket, raw, ...}; a longer message is buried here, its first 64 bytes kept, and
--     told as '', its length
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local ms = math.floor(us / 1000)
-- Reads of every key first: one of a wrong type fails here, before anything was written.
redis.call('LLEN', KEYS[1])
redis.call('LLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('SCARD', KEYS[5])
local last = tonumber(redis.call('GET', KEYS[6]) or '0')
if not last then return redis.error_reply('ERR ctr is not a number') end
local lost = redis.call('HLEN', KEYS[7])
local delayed = redis.call('ZCARD', KEYS[8])
redis.call('HLEN', KEYS[9])
local paused = redis.call('SISMEMBER', KEYS[10], ARGV[1])
redis.call('ZCARD', KEYS[11])
redis.call('HLEN', KEYS[12])
redis.call('HLEN', KEYS[13])
redis.call('XLEN', KEYS[14])
redis.call('HLEN', KEYS[15])
if paused == 1 then return {'PAUSED', ms, -1, lost} end
local due = -1
if delayed > 0 then
  local ready = redis.call('ZRANGEBYSCORE', KEYS[8], '-inf', ms, 'LIMIT', 0, 100)
  for i = 1, #ready do
    local raw = redis.call('HGET', KEYS[9], ready[i])
    if raw then redis.call('RPUSH', KEYS[1], raw) end
    redis.call('ZREM', KEYS[8], ready[i])
    redis.call('HDEL', KEYS[9], ready[i])
  end
  local first = redis.call('ZRANGE', KEYS[8], 0, 0, 'WITHSCORES')
  if first[2] then due = math.max(0, tonumber(first[2]) - ms) end
end
local n = tonumber(ARGV[3])
local got = redis.call('RPOP', KEYS[2], n) or {}
if #got < n then
  local more = redis.call('RPOP', KEYS[1], n - #got) or {}
  for i = 1, #more do got[#got + 1] = more[i] end
end
local reply = {'EMPTY', ms, due, lost}
if #got == 0 then return reply end
local ticket = math.max(last + 1, us)
redis.call('SET', KEYS[6], string.format('%.0f', ticket + #got - 1))
local run, lease, own = {}, {}, {}
local deadline = string.format('%.0f', ms + tonumber(ARGV[4]))
local head = ARGV[2] .. '|' .. ARGV[1] .. '|'
for i = 1, #got do
  local name, raw = string.format('%.0f', ticket + i - 1), got[i]
  if #raw > tonumber(ARGV[5]) then
    redis.call('ZADD', KEYS[11], ms, name)
    redis.call('HSET', KEYS[12], name, string.sub(raw, 1, 64))
    redis.call('HSET', KEYS[13], name, cmsgpack.pack({reason = 'too-big', lane = ARGV[1],
      field = 'raw', value = tostring(#raw), wid = ARGV[2]}))
    redis.call('HINCRBY', KEYS[15], 'dead', 1)
    redis.call('XADD', KEYS[14], 'MAXLEN', '~', '10000', '*', 'e', 'end', 'j', '', 'lane', ARGV[1],
      'at', string.format('%.0f', ms), 'st', 'dead', 'outcome', 'too-big')
    reply[#reply + 1] = ''
    reply[#reply + 1] = tostring(#raw)
  else
    run[#run + 1] = name
    run[#run + 1] = head .. raw
    lease[#lease + 1] = deadline
    lease[#lease + 1] = name
    own[#own + 1] = name
    reply[#reply + 1] = name
    reply[#reply + 1] = raw
  end
end
reply[1] = 'OK'
if #own == 0 then return reply end
redis.call('HSET', KEYS[4], unpack(run))
redis.call('ZADD', KEYS[3], unpack(lease))
redis.call('SADD', KEYS[5], unpack(own))
if #own < 16 then return reply end
-- Under load: Redis keeps few short elements in one string and searches it from the beginning. One
-- longer than its limit makes it a table, which it stays until it is empty. A server or an ACL that
-- does not know the question must not fail what is claimed already.
local long = string.rep('x', 65)
if redis.pcall('OBJECT', 'ENCODING', KEYS[3]) ~= 'skiplist' then
  redis.call('ZADD', KEYS[3], deadline, long)
  redis.call('ZREM', KEYS[3], long)
end
if redis.pcall('OBJECT', 'ENCODING', KEYS[4]) ~= 'hashtable' then
  redis.call('HSET', KEYS[4], long, long)
  redis.call('HDEL', KEYS[4], long)
end
return reply
