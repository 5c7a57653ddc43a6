#!lua flags=allow-oom
-- An alert is raised or cleared, or the one whose reminder is due the longest is told again: says whether
-- that is news. What is news stands in the feed and, for the targets named, as a notice in alert:out,
-- leased to the worker that asked.
-- KEYS 1 alert 2 alert:out 3 ev
-- ARGV 1 raise|clear|remind 2 id of the notice that may come of it; the same id again is the same call
--      3 wid 4 lease ms 5 targets, comma-separated
--      6 clear: ms for which nobody may have raised it; remind: ms after which a reminder is due
--      7 rule 8 subject 9 severity 10 its rank 11 summary 12 details, all '' for remind
--      13 most alerts 14 most notices 15 remind: ms since it was last raised after which it rests
-- -> {FIRING|WORSE|REMINDER|RESOLVED, notice, notices dropped for it} notice '' without targets
--    {REPEATED} counted only | {NONE} nothing to clear, or to remind of | {FULL} one alert too many
--    {STILL} somebody has just raised it: not cleared | {ALREADY, notice or '', 0} its reply was lost
-- alert: "rule subject" -> lines "since count noticed rank id severity raised", summary, details: the
--        highest severity it had, the last words; no field, no alert
-- notice: lines wid, until, targets, kind, state, severity, rule, subject, at, since, count, summary,
--         details
local op, id, wid, lease, targets, wait, rule, subject, severity, rank, summary, details = unpack(ARGV, 1, 12)
for i = 1, 12 do
  if string.find(ARGV[i], '\n', 1, true) then return redis.error_reply('ERR an argument of two lines') end
end
wait = tonumber(wait)
local sent = redis.call('HGET', KEYS[2], id)
redis.call('XLEN', KEYS[3])
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local at = string.format('%.0f', ms)

-- What is no state of an alert is none: {}
local function read(text)
  local a = {}
  a.since, a.count, a.noticed, a.rank, a.id, a.severity, a.raised, a.summary, a.details =
    string.match(text or '', '^(%d+) (%d+) (%d+) (%d) (%x+) (%a+) (%d+)\n([^\n]*)\n([^\n]*)$')
  return a
end

local function write(a)
  redis.call('HSET', KEYS[1], rule .. ' ' .. subject, table.concat({a.since, a.count, a.noticed, a.rank,
    id, a.severity, a.raised}, ' ') .. '\n' .. a.summary .. '\n' .. a.details)
end

local kind, state, now, was = nil, 'firing', nil, nil
if op == 'remind' then
  local field
  if sent then return {'ALREADY', sent, 0} end
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local a = read(all[i + 1])
    if a.since and a.id == id then return {'ALREADY', '', 0} end
    if a.since and ms - a.noticed >= wait and ms - a.raised < tonumber(ARGV[15]) and
        (not now or tonumber(a.noticed) < tonumber(now.noticed)) then
      field, now = all[i], a
    end
  end
  if not now then return {'NONE'} end
  kind, now.noticed = 'REMINDER', at
  rule, subject = string.match(field, '^([^ ]*) (.*)$')
  write(now)
else
  was = redis.call('HGET', KEYS[1], rule .. ' ' .. subject)
  now = read(was)
  if sent or now.id == id then return {'ALREADY', sent or '', 0} end
end
if op == 'clear' then
  if not was then return {'NONE'} end
  if now.since and ms >= tonumber(now.raised) and ms - now.raised < wait then return {'STILL'} end
  kind, state = 'RESOLVED', 'resolved'
  redis.call('HDEL', KEYS[1], rule .. ' ' .. subject)
  now = {since = now.since or at, count = now.count or '1', severity = now.severity or severity,
    summary = summary, details = details}
elseif op == 'raise' then
  if not now.since and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[13]) then return {'FULL'} end
  if not now.since then kind = 'FIRING'
  elseif tonumber(rank) > tonumber(now.rank) then kind = 'WORSE' end
  if now.since and tonumber(now.rank) > tonumber(rank) then rank, severity = now.rank, now.severity end
  now = {since = now.since or at, count = string.format('%.0f', (tonumber(now.count) or 0) + 1),
    noticed = kind and at or now.noticed, rank = rank, severity = severity, raised = at,
    summary = summary, details = details}
  write(now)
  if not kind then return {'REPEATED'} end
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '10000', '*', 'e', 'alert', 'at', at, 'rule', rule,
  'subject', subject, 'state', state, 'kind', string.lower(kind), 'severity', now.severity,
  'summary', now.summary, 'since', now.since, 'count', now.count)
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
  string.lower(kind), state, now.severity, rule, subject, at, now.since, now.count, now.summary,
  now.details}, '\n')
redis.call('HSET', KEYS[2], id, notice)
return {kind, notice, dropped}
