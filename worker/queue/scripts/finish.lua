#!lua flags=allow-oom
-- T9 and T13, running|lost -> done|failed|cancelled, for the jobs of one lane that end in a worker at
-- the same time: record, result, events and the message's end in one step. An absent record
-- (FLUSHALL) is written anew with orphan=1.
-- KEYS 1 run 2 lease 3 own 4 deliv 5 ev 6 stat 7 rt, then of each job: job ev:<jid>
-- ARGV 1 lane, then of each job: ticket jid mid st outcome res err ttl ms dig
--      and the ms that res is kept (0: as long as the record)
-- -> of each job: {OK} | {ALREADY, st} | {STALE} another delivery owns the job; only this ticket is
--    cleared
local call = redis.call
local run, lease, own, deliv, ev, stat, rt = unpack(KEYS, 1, 7)
local lane, jobs = ARGV[1], (#KEYS - 7) / 2
local function record(job) return call('HMGET', job, 'st', 'f', 'err', 'pct') end
-- A field that is empty is left out, unless an earlier attempt has written it.
local function with(name, value, before) if value ~= '' or before then return name, value end end
-- Reads of every key first: one of a wrong type fails here, before anything was written.
local lost = call('HLEN', deliv)
call('HLEN', run)
call('ZCARD', lease)
call('SCARD', own)
call('XLEN', ev)
call('HLEN', stat)
call('ZCARD', rt)
local tickets, was, seen = {}, {}, {}
for i = 1, jobs do
  local st = ARGV[i * 10 - 5]
  if st ~= 'done' and st ~= 'failed' and st ~= 'cancelled' then
    return redis.error_reply('ERR st is not done, failed or cancelled')
  end
  tickets[i], was[i] = ARGV[i * 10 - 8], record(KEYS[6 + 2 * i])
  seen[i] = call('XLEN', KEYS[7 + 2 * i]) > 0
end
local t = call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at = string.format('%.0f', ms)
call('HDEL', run, unpack(tickets))
call('ZREM', lease, unpack(tickets))
call('SREM', own, unpack(tickets))

local function finish(r, seen, job, events, ticket, jid, mid, st, outcome, res, err, ttl, dig, keep)
  if r[1] and r[2] ~= ticket then return {'STALE'} end
  if r[1] and r[1] ~= 'running' and r[1] ~= 'lost' then return {'ALREADY', r[1]} end
  if r[1] then
    call('HSET', job, 'st', st, 'outcome', outcome, 'res', res, 'e_at', at,
      'pct', st == 'done' and '100' or r[4] or '0', with('err', err, r[3]))
  else
    call('HSET', job, 'st', st, 'outcome', outcome, 'res', res, 'e_at', at, 'f', ticket, 'n', '1',
      'dig', dig, 'type', lane, 'lane', lane, 'orphan', '1', with('err', err))
  end
  call('PEXPIRE', job, ttl)
  if keep ~= '0' then call('ZADD', rt, ms + tonumber(keep), jid) end
  if lost > 0 then call('HDEL', deliv, mid) end
  call('XADD', ev, '*', 'e', 'end', 'j', jid, 'lane', lane, 'at', at, 'st', st, 'outcome', outcome)
  if seen then
    call('XADD', events, 'MAXLEN', '~', '500', '*', 'e', 'end', 'at', at, 'st', st,
      'outcome', outcome)
    call('PEXPIRE', events, ttl)
  end
end

local reply, touched, ended = {}, {}, {}
for i = 1, jobs do
  local job, outcome = KEYS[6 + 2 * i], ARGV[i * 10 - 4]
  reply[i] = finish(touched[job] and record(job) or was[i], seen[i], job, KEYS[7 + 2 * i],
    unpack(ARGV, i * 10 - 8, i * 10 + 1))
  touched[job] = true -- the same id twice: the second sees what the first has written
  if not reply[i] then
    reply[i], ended[outcome] = {'OK'}, (ended[outcome] or 0) + 1
  end
end
for outcome, n in pairs(ended) do call('HINCRBY', stat, outcome, n) end
call('XTRIM', ev, 'MAXLEN', '~', '10000')
return reply
