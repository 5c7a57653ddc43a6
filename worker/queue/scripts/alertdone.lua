#!lua flags=allow-oom
-- One target has a notice, or was given up: it need not be told again, by nobody.
-- KEYS 1 alert:out
-- ARGV 1 id 2 target
-- -> {OK, targets left} | {GONE}
local notice = redis.call('HGET', KEYS[1], ARGV[1])
if not notice then return {'GONE'} end
local head, targets, rest = string.match(notice, '^([^\n]*\n[^\n]*\n)([^\n]*)(\n.*)$')
local left = {}
for one in string.gmatch(targets or '', '[^,]+') do
  if one ~= ARGV[2] then left[#left + 1] = one end
end
if #left == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], head .. table.concat(left, ',') .. rest)
end
return {'OK', #left}
