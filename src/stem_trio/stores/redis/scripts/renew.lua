-- Let leases last from now on. ARGV for each: id, token, microseconds. Returns 1 or 0 for each: whether it is still held.
begin_to_write()
local count = #ARGV / 3
local ids = {}
for i = 1, count do ids[i] = ARGV[i * 3 - 2] end
local states = redis.call('HMGET', STATES, unpack(ids))
local ends = redis.call('ZMSCORE', LEASED, unpack(ids))
local time = now()
local leases, result = {}, {}
for i, id in ipairs(ids) do
  result[i] = 0
  if states[i] and ends[i] and tonumber(ends[i]) > time then
    local _, token = struct.unpack(STATE, states[i])
    if token == tonumber(ARGV[i * 3 - 1]) then
      result[i] = 1
      leases[#leases + 1] = math.max(tonumber(ends[i]), time + tonumber(ARGV[i * 3]))
      leases[#leases + 1] = id
    end
  end
end
if #leases > 0 then redis.call('ZADD', LEASED, unpack(leases)) end
return result
