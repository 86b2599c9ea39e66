-- Show tasks that wait: the ready ones, then the delayed ones. ARGV: how many at most, how many to skip.
-- Returns lists of ids, envelopes, states, and microseconds until due (-1 when ready).
local limit, offset = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = now()
if promote(time) + reclaim(time) > 0 then wake() end
local ids, dues = redis.call('ZRANGE', READY, offset, offset + limit - 1), {}
for i = 1, #ids do dues[i] = -1 end
if #ids < limit then
  local skip = math.max(0, offset - redis.call('ZCARD', READY))
  local found = redis.call('ZRANGE', DELAYED, skip, skip + limit - #ids - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
    dues[#dues + 1] = math.max(0, tonumber(found[i + 1]) - time)
  end
end
if #ids == 0 then return {{}, {}, {}, {}} end
return {ids, redis.call('HMGET', MESSAGES, unpack(ids)), redis.call('HMGET', STATES, unpack(ids)), dues}
