-- Write statuses, each unless a newer one is in place. KEYS: one for each. ARGV for each: the status, milliseconds to
-- keep it. Returns 1 or 0 for each: whether it was written.
local result = {}
for i, key in ipairs(KEYS) do
  local value = ARGV[i * 2 - 1]
  if redis.call('GETRANGE', key, 0, 15) > value then
    result[i] = 0
  else
    replace_status(key, value, ARGV[i * 2])
    result[i] = 1
  end
end
return result
