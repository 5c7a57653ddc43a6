#!lua flags=allow-oom
-- An alert is raised or cleared: says whether that is news. What is news stands in the feed and, for the
-- targets named, as a notice in alert:out, leased to the worker that asked.
-- KEYS 1 alert 2 alert:out 3 ev
-- ARGV 1 raise|clear 2 id of the notice that may come of it; the same id again is the same call
--      3 wid 4 lease ms 5 targets, comma-separated 6 ms after which a reminder is due
--      7 rule 8 subject 9 severity 10 its rank 11 summary 12 details 13 most alerts 14 most notices
-- -> {FIRING|WORSE|REMINDER|RESOLVED, notice, notices dropped for it} notice '' without targets
--    {REPEATED} counted only | {NONE} there was nothing to clear | {FULL} one alert too many
--    {ALREADY, notice or '', 0} its reply was lost
-- alert: "rule subject" -> "since count noticed rank id severity", the highest it had; no field, no alert
-- notice: lines wid, until, targets, kind, state, severity, rule, subject, at, since, count, summary,
--         details
local op, id, wid, lease, targets, wait, rule, subject, severity, rank, summary, details = unpack(ARGV, 1, 12)
for i = 1, 12 do
  if string.find(ARGV[i], '\n', 1, true) then return redis.error_reply('ERR an argument of two lines') end
end
local field = rule .. ' ' .. subject
local was = redis.call('HGET', KEYS[1], field)
local sent = redis.call('HGET', KEYS[2], id)
redis.call('XLEN', KEYS[3])
local since, count, noticed, was_rank, last, was_severity
if was then
  since, count, noticed, was_rank, last, was_severity =
    string.match(was, '^(%d+) (%d+) (%d+) (%d) (%x+) (%a+)$')
end
if sent or last == id then return {'ALREADY', sent or '', 0} end
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at = string.format('%.0f', ms)
local kind, state = nil, 'firing'
if op == 'clear' then
  if not was then return {'NONE'} end
  kind, state, severity = 'RESOLVED', 'resolved', was_severity or severity
  redis.call('HDEL', KEYS[1], field)
  since, count = since or at, count or '1'
else
  if not since and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[13]) then return {'FULL'} end
  if not since then kind = 'FIRING'
  elseif tonumber(rank) > tonumber(was_rank) then kind = 'WORSE'
  elseif ms - tonumber(noticed) >= tonumber(wait) then kind = 'REMINDER' end
  if since and tonumber(was_rank) > tonumber(rank) then rank, severity = was_rank, was_severity end
  since = since or at
  count = string.format('%.0f', (tonumber(count) or 0) + 1)
  redis.call('HSET', KEYS[1], field, table.concat({since, count, kind and at or noticed,
    rank, id, severity}, ' '))
  if not kind then return {'REPEATED'} end
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '10000', '*', 'e', 'alert', 'at', at, 'rule', rule,
  'subject', subject, 'state', state, 'kind', string.lower(kind), 'severity', severity,
  'summary', summary, 'since', since, 'count', count)
if targets == '' then return {kind, '', 0} end
local dropped = 0
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[14]) then
  local oldest, when
  local all = redis.call('HGETALL', KEYS[2])
  for i = 1, #all, 2 do
    local its = tonumber(string.match(all[i + 1], '^' .. string.rep('[^\n]*\n', 8) .. '(%d+)') or '0')
    if not when or its < when then oldest, when = all[i], its end
  end
  dropped = redis.call('HDEL', KEYS[2], oldest)
end
local notice = table.concat({wid, string.format('%.0f', ms + tonumber(lease)), targets,
  string.lower(kind), state, severity, rule, subject, at, since, count, summary, details}, '\n')
redis.call('HSET', KEYS[2], id, notice)
return {kind, notice, dropped}
