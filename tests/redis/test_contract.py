"""The stores on Redis keep the contracts, on a real server and the real clock.

With STEM_TEST_ALL_SERVERS set, on the Redis server that is installed on this machine, too.
"""

import os

import pytest

from stem_trio import InMemoryResultBackend
from stem_trio.stores.redis import RedisBroker, RedisResultBackend
from stem_trio.testing.contracts import BrokerContract, JointStoreContract, ResultBackendContract
from tests.redis.servers import redis_binary, serve

SERVERS = ["default", "installed"] if os.environ.get("STEM_TEST_ALL_SERVERS") else ["default"]


@pytest.fixture(scope="module", params=SERVERS)
def server_url(request):
    if request.param == "default":
        yield request.getfixturevalue("redis_url")
        return
    binary = redis_binary()
    assert binary is not None, "STEM_TEST_ALL_SERVERS is set, and there is no redis-server on PATH"
    with serve(binary=binary) as server:
        yield server.url


class TestRedisBroker(BrokerContract):
    @pytest.fixture
    async def broker(self, server_url, prefix):
        async with RedisBroker.connect(server_url, prefix=prefix) as broker:
            yield broker

    @pytest.fixture
    async def another_broker(self, server_url, prefix):
        async with RedisBroker.connect(server_url, prefix=prefix) as broker:
            yield broker


class TestRedisResultBackend(ResultBackendContract):
    @pytest.fixture
    async def backend(self, server_url, prefix):
        async with RedisResultBackend.connect(server_url, prefix=prefix) as backend:
            yield backend

    @pytest.fixture
    async def another_backend(self, server_url, prefix):
        async with RedisResultBackend.connect(server_url, prefix=prefix) as backend:
            yield backend


class TestRedisJointStore(JointStoreContract):
    @pytest.fixture
    async def broker(self, server_url, prefix):
        async with RedisBroker.connect(server_url, prefix=prefix) as broker:
            yield broker

    @pytest.fixture
    async def backend(self, server_url, prefix):
        async with RedisResultBackend.connect(server_url, prefix=prefix) as backend:
            yield backend


def test_which_can_be_joined():
    """Only a backend in the same database of the same server, as the same user, is reached by the broker's scripts."""
    broker = RedisBroker.connect("redis://u:p@host/1")
    assert broker.join(RedisResultBackend.connect("redis://u:p@host/1")) is not None
    for other in ("redis://u:p@host/2", "redis://u:p@host2/1", "redis://host/1", "redis://u:p@host:1/1"):
        assert broker.join(RedisResultBackend.connect(other)) is None
    assert broker.join(InMemoryResultBackend()) is None
