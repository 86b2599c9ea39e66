-- Count the tasks of the queue by place, once what is due has moved. Returns ready, delayed, leased, dead.
local time = now()
if promote(time) + reclaim(time) > 0 then wake() end
return {
  redis.call('ZCARD', READY), redis.call('ZCARD', DELAYED), redis.call('ZCARD', LEASED), redis.call('ZCARD', DEAD)
}
