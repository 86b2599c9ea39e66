-- Take tasks under lease, from one queue or several.
-- KEYS: those of each queue. ARGV: how many at most, id of the consumer, 1 if it is going to wait when there is nothing.
-- Returns: the time, microseconds until something may change by itself (or -1), and for each queue taken from a list of
-- its number, the ids, the envelopes, the states, and the reasons of revocation (false where not revoked; empty if
-- none is).
local limit, consumer, waits = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
begin_to_write()
local queues = #KEYS / PER_QUEUE
local time = now()
local issued = 0
-- In place of the numbers of a task that somebody else has deleted: it must not stop the queue.
local UNKNOWN = struct.pack(STATE, 0, 0, 0, 0, 0, 30000)

-- Hand the tasks with these ids, which are in no place any more, to the consumer.
local function lease_out(position, ids)
  local messages = redis.call('HMGET', MESSAGES, unpack(ids))
  local states = redis.call('HMGET', STATES, unpack(ids))
  local leases, changed = {}, {}
  for i, id in ipairs(ids) do
    local rank, _, attempt, deliveries, strikes, lease = struct.unpack(STATE, states[i] or UNKNOWN)
    -- The token: never given for this id before, nor to another task of this call.
    states[i] = struct.pack(STATE, rank, time + issued, attempt, deliveries + 1, strikes, lease)
    issued = issued + 1
    leases[#leases + 1] = time + lease * 1000
    leases[#leases + 1] = id
    changed[#changed + 1] = id
    changed[#changed + 1] = states[i]
  end
  redis.call('ZADD', LEASED, unpack(leases))
  redis.call('HSET', STATES, unpack(changed))
  local reasons = {}
  if redis.call('HLEN', REVOKED) > 0 then reasons = redis.call('HMGET', REVOKED, unpack(ids)) end
  return {position, ids, messages, states, reasons}
end

-- The bell goes on: to whoever takes what is left, or watches over the leases that were just given. Also in queues that
-- nothing was taken from: it may have been theirs that rang.
local function pass_bell(leased)
  local alarm = redis.call('GET', ALARM)
  local mine = alarm and string.sub(alarm, 18) == consumer
  if mine then redis.call('DEL', ALARM) end
  if mine or (leased and not alarm) or redis.call('ZCARD', READY) > 0 then wake() end
end

-- Microseconds until something changes by itself here. One of those who wait is told the moment itself, the others a
-- second more: they do not all wake for it, and yet nothing waits for ever for one that has died.
local function next_change()
  local first
  for _, key in ipairs({DELAYED, LEASED}) do
    local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if #head > 0 and (not first or tonumber(head[2]) < first) then first = tonumber(head[2]) end
  end
  if not first then return -1 end
  local left = math.max(first - time, 0)
  local alarm = redis.call('GET', ALARM)
  if alarm and string.sub(alarm, 18) ~= consumer and tonumber(string.sub(alarm, 1, 17)) <= first then
    return left + 1000000
  end
  redis.call('SET', ALARM, string.format('%017.0f', first) .. consumer, 'PX', math.floor(left / 1000) + 1000)
  return left
end

local taken = {}
if queues == 1 then
  promote(time)
  reclaim(time)
  local popped = redis.call('ZPOPMIN', READY, limit)
  if #popped > 0 then
    local ids = {}
    for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
    taken[1] = lease_out(1, ids)
    pass_bell(true)
  end
else
  -- The best of all queues; within a priority the queue that was served longest ago is next.
  local heads, at, served, chosen = {}, {}, {}, {}
  for position = 1, queues do
    use(position)
    promote(time)
    reclaim(time)
    heads[position] = redis.call('ZRANGE', READY, 0, limit - 1, 'WITHSCORES')
    at[position] = 1
    served[position] = tonumber(redis.call('GET', SERVED) or 0)
    chosen[position] = {}
  end
  for turn = 1, limit do
    local best, best_lane
    for position = 1, queues do
      local rank = heads[position][at[position] + 1]
      if rank then
        local lane = lane_of(tonumber(rank))
        if not best or lane < best_lane or (lane == best_lane and served[position] < served[best]) then
          best, best_lane = position, lane
        end
      end
    end
    if not best then break end
    local ids = chosen[best]
    ids[#ids + 1] = heads[best][at[best]]
    at[best] = at[best] + 2
    served[best] = time + turn
  end
  for position = 1, queues do
    if #chosen[position] > 0 then
      use(position)
      redis.call('ZREM', READY, unpack(chosen[position]))
      redis.call('SET', SERVED, served[position], 'EX', 3600)
      taken[#taken + 1] = lease_out(position, chosen[position])
    end
  end
  if #taken > 0 then
    for position = 1, queues do
      use(position)
      pass_bell(#chosen[position] > 0)
    end
  end
end

local change = -1
if #taken == 0 and waits then
  for position = 1, queues do
    use(position)
    local left = next_change()
    if left >= 0 and (change < 0 or left < change) then change = left end
  end
end
return {time, change, taken}
