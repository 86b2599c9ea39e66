-- Put before every script of the broker. The keys are those of one queue, which share its hash tag; `claim` takes several.
--
-- Every task is in exactly one of READY, DELAYED, LEASED and DEAD, which are sorted sets of task ids. What it is stands in
-- MESSAGES (the envelope) and STATES (the numbers that change). Scores: READY by rank, which puts higher priorities first
-- and within them the order of arrival; the others by the server's time in microseconds, of the due moment, of the end of
-- the lease, and of death.
local READY, DELAYED, LEASED, DEAD, MESSAGES, STATES, LETTERS, REVOKED, SEQUENCE, WAKE, ALARM, SERVED
local PER_QUEUE = 12

-- Work with the keys of the queue that was given as number `position`.
local function use(position)
  READY, DELAYED, LEASED, DEAD, MESSAGES, STATES, LETTERS, REVOKED, SEQUENCE, WAKE, ALARM, SERVED =
    unpack(KEYS, (position - 1) * PER_QUEUE + 1, position * PER_QUEUE)
end
use(1)

local LANE = 562949953421312        -- 2^49: distance between the ranks of two priorities
local BATCH = 500                   -- how many tasks one call moves by the mere passing of time
local STATE = '<ddI4I4I4I4'         -- rank, token, attempt, deliveries, strikes, lease in milliseconds

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A server whose memory is full refuses commands that may need more, unless the script has written before. What keeps
-- leases, hands tasks out and ends them must get through, or nothing would ever be freed: it begins with this, which
-- takes nothing away.
local function begin_to_write()
  redis.call('ZREM', LEASED, '')
end

local function next_ranks(count)
  return redis.call('INCRBY', SEQUENCE, count) - count
end

-- Let one waiting worker look. One entry is enough: whoever takes work and leaves some behind wakes the next.
local function wake()
  if redis.call('LLEN', WAKE) == 0 then
    redis.call('LPUSH', WAKE, 1)
    redis.call('PEXPIRE', WAKE, 60000)
  end
end

local function lane_of(rank)
  return math.floor(rank / LANE) * LANE
end

-- Delayed tasks that are due get ready, at the end of their lanes.
local function promote(time)
  local ids = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', time, 'LIMIT', 0, BATCH)
  if #ids == 0 then return 0 end
  local states = redis.call('HMGET', STATES, unpack(ids))
  local sequence = next_ranks(#ids)
  local ready, changed = {}, {}
  for i, id in ipairs(ids) do
    if states[i] then
      local rank, token, attempt, deliveries, strikes, lease = struct.unpack(STATE, states[i])
      rank = lane_of(rank) + sequence + i
      ready[#ready + 1] = rank
      ready[#ready + 1] = id
      changed[#changed + 1] = id
      changed[#changed + 1] = struct.pack(STATE, rank, token, attempt, deliveries, strikes, lease)
    end
  end
  redis.call('ZREM', DELAYED, unpack(ids))
  if #ready > 0 then
    redis.call('ZADD', READY, unpack(ready))
    redis.call('HSET', STATES, unpack(changed))
  end
  return #ids
end

-- Tasks whose lease has ended get ready again, where they were in their lanes, with one strike more.
local function reclaim(time)
  local ids = redis.call('ZRANGEBYSCORE', LEASED, '-inf', time, 'LIMIT', 0, BATCH)
  if #ids == 0 then return 0 end
  local states = redis.call('HMGET', STATES, unpack(ids))
  local ready, changed = {}, {}
  for i, id in ipairs(ids) do
    if states[i] then
      local rank, token, attempt, deliveries, strikes, lease = struct.unpack(STATE, states[i])
      ready[#ready + 1] = rank
      ready[#ready + 1] = id
      changed[#changed + 1] = id
      changed[#changed + 1] = struct.pack(STATE, rank, 0, attempt, deliveries, strikes + 1, lease)
    end
  end
  redis.call('ZREM', LEASED, unpack(ids))
  if #ready > 0 then
    redis.call('ZADD', READY, unpack(ready))
    redis.call('HSET', STATES, unpack(changed))
  end
  return #ids
end
