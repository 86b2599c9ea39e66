"""The stores on Redis keep the contracts, on a real server and the real clock."""

import pytest

from stem_trio.stores.redis import RedisBroker, RedisResultBackend
from stem_trio.testing.contracts import BrokerContract, ResultBackendContract


class TestRedisBroker(BrokerContract):
    @pytest.fixture
    async def broker(self, redis_url, prefix):
        async with RedisBroker.connect(redis_url, prefix=prefix) as broker:
            yield broker

    @pytest.fixture
    async def another_broker(self, redis_url, prefix):
        async with RedisBroker.connect(redis_url, prefix=prefix) as broker:
            yield broker


class TestRedisResultBackend(ResultBackendContract):
    @pytest.fixture
    async def backend(self, redis_url, prefix):
        async with RedisResultBackend.connect(redis_url, prefix=prefix) as backend:
            yield backend

    @pytest.fixture
    async def another_backend(self, redis_url, prefix):
        async with RedisResultBackend.connect(redis_url, prefix=prefix) as backend:
            yield backend
