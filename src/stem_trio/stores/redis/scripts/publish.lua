-- Put tasks in, to be claimed now or after a delay. Ids that are held already are left as they are.
-- ARGV: delay in microseconds, then for each task: id, priority, lease in milliseconds, envelope.
-- Returns 1 or 0 for each task: whether it was put in.
local delay = tonumber(ARGV[1])
local count = (#ARGV - 1) / 4
local ids = {}
for i = 1, count do ids[i] = ARGV[i * 4 - 2] end
local known = redis.call('HMGET', STATES, unpack(ids))
local sequence = next_ranks(count)
local due = now() + delay
local messages, states, places, result, seen = {}, {}, {}, {}, {}
for i, id in ipairs(ids) do
  if known[i] or seen[id] then
    result[i] = 0
  else
    seen[id] = true
    result[i] = 1
    local rank = (9 - tonumber(ARGV[i * 4 - 1])) * LANE + sequence + i
    messages[#messages + 1] = id
    messages[#messages + 1] = ARGV[i * 4 + 1]
    states[#states + 1] = id
    states[#states + 1] = struct.pack(STATE, rank, 0, 0, 0, 0, tonumber(ARGV[i * 4]))
    places[#places + 1] = delay > 0 and due or rank
    places[#places + 1] = id
  end
end
if #places > 0 then
  redis.call('HSET', MESSAGES, unpack(messages))
  redis.call('HSET', STATES, unpack(states))
  if delay > 0 then
    local first = redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
    redis.call('ZADD', DELAYED, unpack(places))
    -- Nobody may be waiting for a moment as early as this one.
    if #first == 0 or due < tonumber(first[2]) then wake() end
  else
    redis.call('ZADD', READY, unpack(places))
    wake()
  end
end
return result
