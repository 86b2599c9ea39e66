"""The stores in memory keep the contracts."""

import pytest

from stem_trio.stores.memory import InMemoryBroker, InMemoryResultBackend
from stem_trio.testing.contracts import BrokerContract, ResultBackendContract
from stem_trio.testing.contracts._backend_heartbeats import HeartbeatTests


class TestInMemoryBroker(BrokerContract):
    fake_clock = True

    @pytest.fixture
    async def broker(self):
        async with InMemoryBroker() as broker:
            yield broker


class TestInMemoryResultBackend(ResultBackendContract):
    fake_clock = True

    @pytest.fixture
    async def backend(self):
        async with InMemoryResultBackend() as backend:
            yield backend


class TestOnTheRealClock(HeartbeatTests):
    """A small part of the suites, to see that they run on the real clock too."""

    short = 0.05

    @pytest.fixture
    async def backend(self):
        async with InMemoryResultBackend() as backend:
            yield backend
