#!lua flags=allow-oom
-- The catalog's head as Redis witnesses it: field `head` of info, {seq, sha256}; it only rises.
-- KEYS 1 info
-- ARGV 1 seq 2 SHA-256 of that record, hex
-- -> {OK} | {OLDER, seq, sha256}: a newer head was seen | {OTHER, seq, sha256}: another one of this seq
local raw = redis.call('HGET', KEYS[1], 'head')
local whole, seen = pcall(cmsgpack.unpack, raw or '')
local seq = whole and type(seen) == 'table' and type(seen.seq) == 'number' and seen.seq or 0
local sha = seq > 0 and tostring(seen.sha256) or ''
local mine = tonumber(ARGV[1])
if seq > mine then return {'OLDER', string.format('%.0f', seq), sha} end
if seq == mine and sha ~= ARGV[2] then return {'OTHER', string.format('%.0f', seq), sha} end
if seq < mine then redis.call('HSET', KEYS[1], 'head', cmsgpack.pack({seq = mine, sha256 = ARGV[2]})) end
return {'OK'}
