-- Write statuses. KEYS: one for each. ARGV for each: the status, milliseconds to keep it.
-- Returns 1 or 0 for each: whether it was written.
local result = {}
for i, key in ipairs(KEYS) do result[i] = write_status(key, ARGV[i * 2 - 1], ARGV[i * 2]) end
return result
