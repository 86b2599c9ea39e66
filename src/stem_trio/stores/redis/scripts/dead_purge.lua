-- Delete dead letters: those with the ids in ARGV, or up to BATCH of all when there are none. Returns how many.
local ids = {}
if #ARGV > 0 then
  for _, id in ipairs(ARGV) do
    if redis.call('ZREM', DEAD, id) == 1 then ids[#ids + 1] = id end
  end
else
  ids = redis.call('ZRANGE', DEAD, 0, BATCH - 1)
  if #ids > 0 then redis.call('ZREM', DEAD, unpack(ids)) end
end
if #ids > 0 then
  redis.call('HDEL', MESSAGES, unpack(ids))
  redis.call('HDEL', STATES, unpack(ids))
  redis.call('HDEL', LETTERS, unpack(ids))
  redis.call('HDEL', REVOKED, unpack(ids))
end
return #ids
