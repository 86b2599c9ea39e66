-- Write a status, unless a newer one is in place, and tell whoever watches. A stored status is its version in 16 digits,
-- then its JSON, so that texts compare as versions do. The channel has the name of the key.
local function write_status(key, value, ttl)
  if redis.call('GETRANGE', key, 0, 15) > value then return 0 end
  redis.call('SET', key, value, 'PX', ttl)
  redis.call('PUBLISH', key, value)
  return 1
end
