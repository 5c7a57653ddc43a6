#!lua flags=allow-oom
-- The catalog's head as Redis witnesses it: field `head` of info, {seq, sha256, store}; of one store it only rises.
-- What stands there of another store is no witness of this one; one without a store is of an earlier version, thus ours.
-- KEYS 1 info
-- ARGV 1 seq 2 SHA-256 of that record, hex 3 id of the store
-- -> {OK} | {OLDER, seq, sha256}: a newer head was seen | {OTHER, seq, sha256}: another one of this seq
local raw = redis.call('HGET', KEYS[1], 'head')
local whole, seen = pcall(cmsgpack.unpack, raw or '')
local seq = whole and type(seen) == 'table' and type(seen.seq) == 'number' and seen.seq or 0
local store = seq > 0 and type(seen.store) == 'string' and seen.store or ''
if store ~= '' and store ~= ARGV[3] then seq = 0 end
local sha = seq > 0 and tostring(seen.sha256) or ''
local mine = tonumber(ARGV[1])
if seq > mine then return {'OLDER', string.format('%.0f', seq), sha} end
if seq == mine and sha ~= ARGV[2] then return {'OTHER', string.format('%.0f', seq), sha} end
if seq < mine or store == '' then
  redis.call('HSET', KEYS[1], 'head', cmsgpack.pack({seq = mine, sha256 = ARGV[2], store = ARGV[3]}))
end
return {'OK'}
