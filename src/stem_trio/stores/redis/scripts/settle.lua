-- End deliveries, each if its lease still holds.
-- KEYS: those of the queue; then, when statuses are written along, the key of each task's.
-- ARGV: how long dead letters are kept in microseconds, how many; then for each: id, token, and what to do:
--   'C' complete; 'R' and a delay in microseconds: retry; 'D' and a packed letter: dead letter; 'L' release;
-- and then, with statuses: the status, milliseconds to keep it.
-- Returns 1 or 0 for each: whether it was done.
begin_to_write()
local joint = #KEYS > PER_QUEUE
local width = joint and 5 or 3
local keep_for, keep = tonumber(ARGV[1]), tonumber(ARGV[2])
local count = (#ARGV - 2) / width
local ids, keys, old = {}, {}, {}
for i = 1, count do
  ids[i] = ARGV[(i - 1) * width + 3]
  if joint then keys[i] = KEYS[PER_QUEUE + i] end
end
if joint then old = redis.call('MGET', unpack(keys)) end
local states = redis.call('HMGET', STATES, unpack(ids))
local ends = redis.call('ZMSCORE', LEASED, unpack(ids))
local time = now()
local any_revoked = redis.call('HLEN', REVOKED) > 0
local result, done, over, left = {}, {}, {}, {}
local ended, completed = 0, 0
local changed, ready, delayed, dead, letters = {}, {}, {}, {}, {}

local function keep_state(id, ...)
  changed[#changed + 1] = id
  changed[#changed + 1] = struct.pack(STATE, ...)
end

local function place(set, score, id)
  set[#set + 1] = score
  set[#set + 1] = id
end

for i = 1, count do
  local id = ids[i]
  result[i] = 0
  if states[i] and ends[i] and tonumber(ends[i]) > time and not done[id] then
    local rank, token, attempt, deliveries, strikes, lease = struct.unpack(STATE, states[i])
    local at = (i - 1) * width + 2
    if token == tonumber(ARGV[at + 2]) then
      local act = ARGV[at + 3]
      local what = string.sub(act, 1, 1)
      result[i] = 1
      done[id] = true
      ended = ended + 1
      left[ended] = id
      if what == 'C' then
        completed = completed + 1
        over[completed] = id
      elseif what == 'R' then
        local delay = tonumber(string.sub(act, 2))
        -- What is revoked does not run again, so there is nothing to wait for.
        if delay > 0 and not (any_revoked and redis.call('HEXISTS', REVOKED, id) == 1) then
          place(delayed, time + delay, id)
        else
          rank = lane_of(rank) + next_ranks(1) + 1
          place(ready, rank, id)
        end
        keep_state(id, rank, 0, attempt + 1, deliveries, 0, lease)
      elseif what == 'D' then
        place(dead, time, id)
        letters[#letters + 1] = id
        letters[#letters + 1] = string.sub(act, 2)
        keep_state(id, rank, 0, attempt, deliveries, strikes, lease)
      else
        place(ready, rank, id)
        keep_state(id, rank, 0, attempt, deliveries, strikes, lease)
      end
      if joint and not (old[i] and string.sub(old[i], 1, 16) > ARGV[at + 4]) then
        replace_status(keys[i], ARGV[at + 4], ARGV[at + 5])
      end
    end
  end
end

if ended > 0 then redis.call('ZREM', LEASED, unpack(left)) end
if completed > 0 then
  redis.call('HDEL', MESSAGES, unpack(over))
  redis.call('HDEL', STATES, unpack(over))
  if any_revoked then redis.call('HDEL', REVOKED, unpack(over)) end
end
if #changed > 0 then redis.call('HSET', STATES, unpack(changed)) end
if #ready > 0 then redis.call('ZADD', READY, unpack(ready)) end
if #delayed > 0 then redis.call('ZADD', DELAYED, unpack(delayed)) end
if #ready > 0 or #delayed > 0 then wake() end
if #dead > 0 then
  redis.call('ZADD', DEAD, unpack(dead))
  redis.call('HSET', LETTERS, unpack(letters))
  local old = redis.call('ZRANGEBYSCORE', DEAD, '-inf', time - keep_for, 'LIMIT', 0, BATCH)
  local excess = redis.call('ZCARD', DEAD) - #old - keep
  if excess > 0 then
    for _, id in ipairs(redis.call('ZRANGE', DEAD, #old, #old + math.min(excess, BATCH) - 1)) do old[#old + 1] = id end
  end
  if #old > 0 then
    redis.call('ZREM', DEAD, unpack(old))
    redis.call('HDEL', LETTERS, unpack(old))
    redis.call('HDEL', MESSAGES, unpack(old))
    redis.call('HDEL', STATES, unpack(old))
    redis.call('HDEL', REVOKED, unpack(old))
  end
end
return result
