"""The stores in memory keep the contracts."""

import pytest

from stem_trio.stores.memory import InMemoryBroker, InMemoryResultBackend
from stem_trio.testing.contracts import BrokerContract, ResultBackendContract


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
