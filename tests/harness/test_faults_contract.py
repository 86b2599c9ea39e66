"""Stores that could fail, but do not, keep the contracts: they add nothing, and take nothing away."""

from __future__ import annotations

import pytest

from stem_trio.stores.memory import InMemoryBroker, InMemoryResultBackend
from stem_trio.testing.contracts import BrokerContract, ResultBackendContract
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker


class TestFaultyBroker(BrokerContract):
    fake_clock = True

    @pytest.fixture
    async def broker(self):
        async with FaultyBroker(InMemoryBroker(), Faults()) as broker:
            yield broker


class TestFaultyBackend(ResultBackendContract):
    fake_clock = True

    @pytest.fixture
    async def backend(self):
        async with FaultyBackend(InMemoryResultBackend(), Faults()) as backend:
            yield backend
