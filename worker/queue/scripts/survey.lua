#!lua flags=no-writes
-- What stands in the queue, in one look; changes nothing. A key of a wrong type counts as empty: who
-- looks after everything must not be stopped by one.
-- KEYS 1 wk (its prefix is that of all keys)
-- ARGV 1 most workers and schedules told 2 longest message told, then the lanes
-- -> {server ms, {of each lane: waiting, urgent, delayed, running, paused 1|0, next in line},
--     stat as name, value ..., {of each worker: wid, beat, host, version, lanes, schedule},
--     dead letters, {of each schedule: name, next slot, if that is over the definition's first bytes},
--     {seq, SHA-256 of the catalog's head, store}, {ms, backups that wait, plan: the last retention}}
local prefix, most, longest = KEYS[1]:sub(1, -3), tonumber(ARGV[1]), tonumber(ARGV[2])
local function ask(nothing, ...)
  local r = redis.pcall(...)
  if not r or (type(r) == 'table' and r.err) then return nothing end
  return r
end
-- A field of info that workers tell; what is no such map has no members.
local function told(field)
  local raw = ask('', 'HGET', prefix .. 'info', field)
  local whole, value = pcall(cmsgpack.unpack, #raw <= longest and raw or '')
  return whole and type(value) == 'table' and value or {}
end
local function number(x) return string.format('%.0f', type(x) == 'number' and x or 0) end
local t = redis.call('TIME')
local lanes, workers, schedules = {}, {}, {}
for i = 3, #ARGV do
  local lane = ARGV[i]
  local q, hi = prefix .. 'q:' .. lane, prefix .. 'q:' .. lane .. ':hi'
  local raw = ask('', 'LINDEX', q, -1)
  lanes[#lanes + 1] = {ask(0, 'LLEN', q), ask(0, 'LLEN', hi), ask(0, 'ZCARD', prefix .. 'delay:' .. lane),
    ask(0, 'ZCARD', prefix .. 'lease:' .. lane), ask(0, 'SISMEMBER', prefix .. 'pause', lane),
    #raw <= longest and raw or ''}
end
for _, wid in ipairs(ask({}, 'ZREVRANGE', KEYS[1], 0, most - 1)) do
  local w = ask({}, 'HMGET', prefix .. 'wk:' .. wid, 'beat', 'host', 'version', 'lanes', 'sched')
  if w[1] then
    workers[#workers + 1] = {wid, w[1], w[2] or '', w[3] or '', w[4] or '', w[5] or ''}
  end
end
local due = ask({}, 'ZRANGE', prefix .. 'schednext', 0, most - 1, 'WITHSCORES')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 1, #due, 2 do
  local slot = tonumber(due[i + 1])
  local definition = slot < ms and ask('', 'HGET', prefix .. 'sched', due[i]) or ''
  schedules[#schedules + 1] = {due[i], string.format('%.0f', slot), definition:sub(1, 1024)}
end
local head, retention = told('head'), told('retention')
return {ms, lanes, ask({}, 'HGETALL', prefix .. 'stat'), workers,
  ask(0, 'ZCARD', prefix .. 'dead'), schedules, {number(head.seq), tostring(head.sha256 or ''), tostring(head.store or '')},
  {number(retention.at), number(retention.waiting_for_yes), tostring(retention.plan_hash or '')}}
