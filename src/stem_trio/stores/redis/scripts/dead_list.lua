-- Show dead letters. ARGV: how many at most, how many to skip, newest first; or 'id' and one id.
-- Returns lists of ids, envelopes, states, letters and times of death.
local ids, times = {}, {}
if ARGV[1] == 'id' then
  local time = redis.call('ZSCORE', DEAD, ARGV[2])
  if time then ids, times = {ARGV[2]}, {time} end
else
  local limit, offset = tonumber(ARGV[1]), tonumber(ARGV[2])
  local found = redis.call('ZREVRANGE', DEAD, offset, offset + limit - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
    times[#times + 1] = found[i + 1]
  end
end
if #ids == 0 then return {{}, {}, {}, {}, {}} end
return {
  ids, redis.call('HMGET', MESSAGES, unpack(ids)), redis.call('HMGET', STATES, unpack(ids)),
  redis.call('HMGET', LETTERS, unpack(ids)), times
}
