-- Put tasks in, to be claimed now or after a delay. Ids that are held already are left as they are.
-- KEYS: those of the queue; then, when statuses are written along with the tasks, the key of each one's.
-- ARGV for each task: id, priority + 10 * delay in microseconds, lease in milliseconds, envelope; then, with statuses:
-- the status, milliseconds to keep it.
-- Returns 1 or 0 for each task: whether it was put in. One that has ended, and whose status says so, is not.
local joint = #KEYS > PER_QUEUE
local width = joint and 6 or 4
local count = #ARGV / width
local ids, keys, old = {}, {}, {}
for i = 1, count do
  ids[i] = ARGV[(i - 1) * width + 1]
  if joint then keys[i] = KEYS[PER_QUEUE + i] end
end
local known = redis.call('HMGET', STATES, unpack(ids))
if joint then old = redis.call('MGET', unpack(keys)) end
local sequence = next_ranks(count)
local time = now()
local messages, states, ready, delayed, result, seen = {}, {}, {}, {}, {}, {}
local put, waiting, soonest = 0, 0, nil

for i = 1, count do
  local id, at = ids[i], (i - 1) * width
  if known[i] or seen[id] or (old[i] and tonumber(string.sub(old[i], 1, 16)) % 8 == 3) then
    result[i] = 0
  else
    seen[id] = true
    result[i] = 1
    local when = tonumber(ARGV[at + 2])
    local priority = when % 10
    local rank = (9 - priority) * LANE + sequence + i
    put = put + 2
    messages[put - 1] = id
    messages[put] = ARGV[at + 4]
    states[put - 1] = id
    states[put] = struct.pack(STATE, rank, 0, 0, 0, 0, tonumber(ARGV[at + 3]))
    if when >= 10 then
      local due = time + (when - priority) / 10
      waiting = waiting + 2
      delayed[waiting - 1] = due
      delayed[waiting] = id
      if not soonest or due < soonest then soonest = due end
    else
      ready[put - waiting - 1] = rank
      ready[put - waiting] = id
    end
    if joint then
      if not (old[i] and string.sub(old[i], 1, 16) > ARGV[at + 5]) then
        replace_status(keys[i], ARGV[at + 5], ARGV[at + 6])
      end
    end
  end
end
if put > 0 then
  redis.call('HSET', MESSAGES, unpack(messages))
  redis.call('HSET', STATES, unpack(states))
end
if put > waiting then
  redis.call('ZADD', READY, unpack(ready))
  wake()
end
if soonest then
  local first = redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
  redis.call('ZADD', DELAYED, unpack(delayed))
  -- Nobody may be waiting for a moment as early as this one.
  if #first == 0 or soonest < tonumber(first[2]) then wake() end
end
return result
