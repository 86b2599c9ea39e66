-- Write statuses, each unless a newer one is in place, and tell whoever watches.
-- A stored status is its version in 16 digits, then its JSON. KEYS: one for each. ARGV: prefix of the channels, then for
-- each: version in 16 digits, JSON, milliseconds to keep, id.
-- Returns 1 or 0 for each: whether it was written.
local result = {}
for i, key in ipairs(KEYS) do
  local version, body, ttl, id = ARGV[i * 4 - 2], ARGV[i * 4 - 1], ARGV[i * 4], ARGV[i * 4 + 1]
  if redis.call('GETRANGE', key, 0, 15) > version then
    result[i] = 0
  else
    redis.call('SET', key, version .. body, 'PX', ttl)
    redis.call('PUBLISH', ARGV[1] .. id, body)
    result[i] = 1
  end
end
return result
