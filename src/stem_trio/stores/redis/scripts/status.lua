-- Write a status, and tell whoever watches. A stored status is its version in 16 digits, then its JSON, so that texts
-- compare as versions do. The channel has the name of the key.
local function replace_status(key, value, ttl)
  redis.call('SET', key, value, 'PX', ttl)
  redis.call('PUBLISH', key, value)
end
