-- Delete tasks that wait: those with the ids in ARGV, or up to BATCH of all when there are none. Returns how many.
-- What is leased is left, but not what only looks so because nobody has claimed since its lease ended.
reclaim(now())
local ids = {}
if #ARGV > 0 then
  for _, id in ipairs(ARGV) do
    if redis.call('ZREM', READY, id) + redis.call('ZREM', DELAYED, id) > 0 then ids[#ids + 1] = id end
  end
else
  for _, key in ipairs({READY, DELAYED}) do
    local found = redis.call('ZRANGE', key, 0, BATCH - 1)
    if #found > 0 then
      redis.call('ZREM', key, unpack(found))
      for _, id in ipairs(found) do ids[#ids + 1] = id end
    end
  end
end
if #ids > 0 then
  redis.call('HDEL', MESSAGES, unpack(ids))
  redis.call('HDEL', STATES, unpack(ids))
  redis.call('HDEL', REVOKED, unpack(ids))
end
return #ids
