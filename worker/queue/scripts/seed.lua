#!lua
-- What the caller's configuration says of its schedules, against what stands here. Of two
-- configurations the one that was started last counts, as long as somebody who has it is seen: so
-- workers old and new do not fight during an update, and what nobody has any more goes.
-- KEYS 1 sched 2 schednext 3 schedlast 4 schedseen (name -> since, seen, cron and zone)
-- ARGV 1 since when the caller has its configuration (0: from now on; nothing is removed) 2 ms after which a
--      definition that nobody has shown counts as nobody's, then of each schedule: name, definition
--      ('': off), cron and zone, first slot after now, slot that the caller knew as next (0: none)
-- -> {OK, server ms, since, then of each: 1 the caller's definition stands | 0 another one, the slot
--     that comes next or -1, schedlast or ''}
local call = redis.call
local t = call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
-- Reads of every key first: one of a wrong type fails here, before anything was written.
call('HLEN', KEYS[1])
call('ZCARD', KEYS[2])
call('HLEN', KEYS[3])
local all, seen = call('HGETALL', KEYS[4]), {}
local since, stale = tonumber(ARGV[1]), tonumber(ARGV[2])
if since == 0 then since = ms end
for i = 1, #all, 2 do
  local from, at, when = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  seen[all[i]] = {since = tonumber(from or '0'), at = tonumber(at or '0'), when = when}
end
-- A clock that was set back by more must not make a definition immortal.
local function shown(s) return s and math.abs(ms - s.at) < stale end

-- The slot that comes next. One that is later than the first from now on is no slot of this
-- definition, or Redis' clock was ahead when it was written.
local function coming(name, moved, first, known)
  local at = tonumber(call('ZSCORE', KEYS[2], name) or '')
  local wanted
  if not at then
    wanted = known > 0 and known < first and known or first
  elseif moved or (at > first and first > ms) then
    wanted = first
  end
  if wanted then call('ZADD', KEYS[2], string.format('%.0f', wanted), name) end
  return wanted or at
end

local reply = {'OK', ms, since}
for i = 3, #ARGV, 5 do
  local name, definition, when, first, known = unpack(ARGV, i, i + 4)
  local stands, s = call('HGET', KEYS[1], name), seen[name]
  seen[name] = nil
  local same, next = stands == definition, -1
  local mine = same or not stands or not shown(s) or since > s.since or
    (since == s.since and definition > stands)
  if mine then
    if not same then call('HSET', KEYS[1], name, definition) end
    if not same or not shown(s) or s.since < since or math.abs(ms - s.at) > stale / 3 then
      call('HSET', KEYS[4], name, string.format('%.0f %.0f %s', math.max(since, same and s and
        s.since or 0), ms, when))
    end
    if definition == '' then
      call('ZREM', KEYS[2], name)
    else
      next = coming(name, not s or s.when ~= when, tonumber(first), tonumber(known))
    end
  end
  reply[#reply + 1] = mine and 1 or 0
  reply[#reply + 1] = next
  reply[#reply + 1] = call('HGET', KEYS[3], name) or ''
end
for name, s in pairs(seen) do
  if ARGV[1] ~= '0' and not shown(s) then
    call('HDEL', KEYS[1], name)
    call('ZREM', KEYS[2], name)
    call('HDEL', KEYS[3], name, name .. ':passed')
    call('HDEL', KEYS[4], name)
  end
end
return reply
