#!lua flags=allow-oom
-- T5, claimed -> running, for the jobs of one lane that a worker starts at the same time: what does
-- not depend on the job is asked and checked once for all.
-- KEYS 1 run 2 lease 3 own 4 ev 5 deliv, then of each job: job ev:<jid>
-- ARGV 1 lane 2 wid, then of each job: ticket jid dig exp ms nbf ms kid record ttl ms resume actor
--      mid
--      (exp, nbf 0: none; resume 1: the message belongs to an open journal, only a run elsewhere
--      stops it; 2: to a closed one, whose end is recorded unless done or failed stands there)
-- -> of each job: {OK, n, server ms} | {ALREADY, n, ms} lost reply | {GONE} the ticket was reaped
--    | {DUP_DONE, st} | {DUP_RUN} | {COLLISION, st} another body under this id
--    | {NOT_YET, nbf} park it
--    | {CANCELLED} {EXPIRED} ended here, or by `cancel` while it waited; the caller notes it down and
--      drops the message: it is told again if it dies before
local call = redis.call
local run, lease, own, ev, deliv = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local lane, wid, jobs = ARGV[1], ARGV[2], (#KEYS - 5) / 2
local t = call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at = string.format('%.0f', ms)
local function record(job)
  return call('HMGET', job, 'st', 'f', 'n', 'dig', 'cancel', 'q_at', 'kid')
end
-- A field that is empty is left out, unless an earlier attempt has written it.
local function with(name, value, before) if value ~= '' or before then return name, value end end
-- Reads of every key first: one of a wrong type fails here, before anything was written.
call('XLEN', ev)
call('ZCARD', lease)
call('HLEN', deliv)
local tickets, was = {}, {}
for i = 1, jobs do
  tickets[i], was[i] = ARGV[i * 10 - 7], record(KEYS[4 + 2 * i])
  if was[i][5] or ARGV[i * 10 - 4] ~= '0' then call('XLEN', KEYS[5 + 2 * i]) end
end
local mine = call('SMISMEMBER', own, unpack(tickets))

local function start(r, mine, job, events, ticket, jid, dig, exp, nbf, kid, ttl, resume, actor, mid)
  if mine == 0 then return {'GONE'} end
  local st, f, n, fresh = r[1], r[2], tonumber(r[3] or '0'), false
  if st == 'dead' and n == 0 then st, fresh = false, true end
  if st then
    if resume == '0' and r[4] and r[4] ~= dig then return {'COLLISION', st} end
    if resume ~= '1' and (st == 'done' or st == 'failed' or
      (resume == '0' and (st == 'cancelled' or st == 'expired' or st == 'dead'))) then
      if st == 'expired' or (st == 'cancelled' and r[5] == '2') then return {string.upper(st)} end
      return {'DUP_DONE', st}
    end
    if st == 'running' then
      if f == ticket then return {'ALREADY', n, ms} end
      if call('HEXISTS', run, f) == 1 then return {'DUP_RUN'} end
    end
  end
  local stop
  if resume == '0' then
    if r[5] and not fresh then stop = 'cancelled'
    elseif n == 0 and exp ~= '0' and ms > tonumber(exp) then stop = 'expired'
    elseif tonumber(nbf) > ms then return {'NOT_YET', nbf} end
  end
  if fresh then call('DEL', job) end
  if stop then
    call('HSET', job, 'st', stop, 'outcome', stop, 'dig', dig, 'type', lane, 'lane', lane, 'n', n,
      'e_at', at, with('cancel', stop == 'cancelled' and '2' or ''))
    call('PEXPIRE', job, ttl)
    call('XADD', ev, '*', 'e', 'end', 'j', jid, 'lane', lane, 'at', at, 'st', stop, 'outcome', stop)
    if call('EXISTS', events) == 1 then
      call('XADD', events, 'MAXLEN', '~', '500', '*', 'e', 'end', 'at', at, 'st', stop,
        'outcome', stop)
    end
    return {string.upper(stop)}
  end
  if resume ~= '0' then call('HDEL', job, 'outcome', 'res', 'err', 'e_at', 'cancel', 'cancel_by') end
  call('HSET', job, 'st', 'running', 'f', ticket, 'n', n + 1, 'dig', dig,
    'type', lane, 'lane', lane, 'actor', actor, 'wid', wid, 's_at', at,
    'q_at', r[6] and not fresh and r[6] or at, 'pct', '0', with('kid', kid, r[7]))
  call('PEXPIRE', job, ttl)
  call('XADD', ev, '*', 'e', 'started', 'j', jid, 'lane', lane, 'at', at, 'st', 'running')
  return {'OK', n + 1, ms}
end

local reply, touched = {}, {}
for i = 1, jobs do
  local job = KEYS[4 + 2 * i]
  reply[i] = start(touched[job] and record(job) or was[i], mine[i], job, KEYS[5 + 2 * i],
    unpack(ARGV, i * 10 - 7, i * 10 + 2))
  touched[job] = true -- the same id twice: the second sees what the first has written
end
call('XTRIM', ev, 'MAXLEN', '~', '10000')
return reply
