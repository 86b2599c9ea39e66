-- Put dead letters back, with attempt and strikes at 0. ARGV: delay in microseconds, then ids.
-- Returns for each: id, envelope, state, letter and time of death, or false where there is no such dead letter.
local delay = tonumber(ARGV[1])
local time = now()
local result, any = {}, false
for i = 2, #ARGV do
  local id = ARGV[i]
  local died = redis.call('ZSCORE', DEAD, id)
  if died then
    local state = redis.call('HGET', STATES, id)
    result[i - 1] = {id, redis.call('HGET', MESSAGES, id), state, redis.call('HGET', LETTERS, id), died}
    local rank, token, _, deliveries, _, lease = struct.unpack(STATE, state)
    rank = lane_of(rank) + next_ranks(1) + 1
    redis.call('ZREM', DEAD, id)
    redis.call('HDEL', LETTERS, id)
    redis.call('HDEL', REVOKED, id)
    redis.call('HSET', STATES, id, struct.pack(STATE, rank, token, 0, deliveries, 0, lease))
    if delay > 0 then redis.call('ZADD', DELAYED, time + delay, id) else redis.call('ZADD', READY, rank, id) end
    any = true
  else
    result[i - 1] = false
  end
end
if any then wake() end
return result
