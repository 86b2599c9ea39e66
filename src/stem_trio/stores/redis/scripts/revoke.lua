-- Mark tasks that wait or are leased, and let those that wait get ready at once.
-- ARGV: reason, then ids. Returns 1 or 0 for each: whether it was marked.
begin_to_write()
local result, woken = {}, false
for i = 2, #ARGV do
  local id = ARGV[i]
  local state = redis.call('HGET', STATES, id)
  if state and not redis.call('ZSCORE', DEAD, id) then
    redis.call('HSET', REVOKED, id, ARGV[1])
    if redis.call('ZREM', DELAYED, id) == 1 then
      local rank, token, attempt, deliveries, strikes, lease = struct.unpack(STATE, state)
      rank = lane_of(rank) + next_ranks(1) + 1
      redis.call('HSET', STATES, id, struct.pack(STATE, rank, token, attempt, deliveries, strikes, lease))
      redis.call('ZADD', READY, rank, id)
      woken = true
    end
    result[i - 1] = 1
  else
    result[i - 1] = 0
  end
end
if woken then wake() end
return result
