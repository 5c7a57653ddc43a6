#!lua
-- A slot of a schedule, absent -> queued, once: whoever finds it as the one that comes next puts the
-- one after it there and pushes the message, in one step. There is no leader: the comparison of the
-- slot is the lock. Refused under maxmemory.
-- KEYS 1 schednext 2 sched 3 schedlast 4 q 5 job of the slot 6 job of the slot fired last (5: none)
--      7 ev 8 stat
-- ARGV 1 name 2 definition 3 slot that comes next 4 slot to fire, the same or a later one 5 slot
--      after it 6 raw ('': it is passed over) 7 jid 8 dig 9 lane 10 record ttl ms 11 1: passed over
--      too while the job of the last slot lives 12 why it is passed over 13 until when that job lives
--      while it only waits: its message has expired then, and may be gone
-- -> {FIRED|PASSED|OVERLAP|EXISTS, server ms, next, schedlast or ''} moved on; EXISTS: the slot has
--    its job already
--    | {EARLY|ALREADY|GONE|OTHER, server ms, next or -1, schedlast or ''} nothing was done: not yet
--    due, another slot comes next, no slot is there, another definition stands
local call = redis.call
local t = call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local name, lane, why = ARGV[1], ARGV[9], ARGV[12]
-- Reads of every key first: one of a wrong type fails here, before anything was written.
local next = tonumber(call('ZSCORE', KEYS[1], name) or '')
local stands = call('HGET', KEYS[2], name)
local last = call('HGET', KEYS[3], name) or ''
call('LLEN', KEYS[4])
local job = call('HMGET', KEYS[5], 'st', 'n')
local before = call('HGET', KEYS[6], 'st')
call('XLEN', KEYS[7])
call('HLEN', KEYS[8])
if not next then return {'GONE', ms, -1, last} end
if stands ~= ARGV[2] then return {'OTHER', ms, next, last} end
if next ~= tonumber(ARGV[3]) then return {'ALREADY', ms, next, last} end
if ms < tonumber(ARGV[4]) then return {'EARLY', ms, next, last} end
call('ZADD', KEYS[1], ARGV[5], name)
local at = string.format('%.0f', ms)
next = tonumber(ARGV[5])
-- A dead letter that never ran makes room, as it does for a corrected message.
if job[1] and not (job[1] == 'dead' and (job[2] or '0') == '0') then return {'EXISTS', ms, next, last} end
local code = 'FIRED'
if ARGV[6] == '' then
  code = 'PASSED'
elseif ARGV[11] == '1' and KEYS[6] ~= KEYS[5] and (before == 'running' or before == 'retry' or
  before == 'lost' or ((before == 'queued' or before == 'delayed') and ms <= tonumber(ARGV[13]))) then
  code, why = 'OVERLAP', 'overlap'
end
if code ~= 'FIRED' then
  call('HSET', KEYS[3], name .. ':passed', cmsgpack.pack({slot = tonumber(ARGV[4]), at = ms, why = why}))
  call('HINCRBY', KEYS[8], 'sched_passed', 1)
  return {code, ms, next, last}
end
if job[1] then call('DEL', KEYS[5]) end
call('HSET', KEYS[5], 'st', 'queued', 'n', '0', 'dig', ARGV[8], 'type', lane, 'lane', lane,
  'q_at', at)
call('PEXPIRE', KEYS[5], ARGV[10])
call('LPUSH', KEYS[4], ARGV[6])
last = cmsgpack.pack({slot = tonumber(ARGV[4]), jid = ARGV[7], at = ms})
call('HSET', KEYS[3], name, last)
call('HINCRBY', KEYS[8], 'sched_fired', 1)
call('XADD', KEYS[7], 'MAXLEN', '~', '10000', '*', 'e', 'queued', 'j', ARGV[7], 'lane', lane,
  'at', at, 'st', 'queued')
return {code, ms, next, last}
