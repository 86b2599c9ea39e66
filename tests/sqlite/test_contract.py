"""The stores on SQLite keep the contracts: under a fake clock on one connection, and on the real one on two."""

import pytest

from stem_trio.clock import TrioClock
from stem_trio.stores.memory import InMemoryResultBackend
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend
from stem_trio.testing.contracts import BrokerContract, ResultBackendContract
from stem_trio.testing.contracts._broker_channels import ChannelTests
from stem_trio.testing.contracts._broker_dead import DeadLetterTests
from stem_trio.testing.contracts._broker_delivery import DeliveryTests
from stem_trio.testing.contracts._broker_leases import LeaseTests
from stem_trio.testing.contracts._broker_waiting import WaitingTests
from stem_trio.testing.contracts.joint import JointStoreContract

from .conftest import as_elsewhere


class TestSqliteBroker(BrokerContract):
    fake_clock = True

    @pytest.fixture
    async def broker(self, file):
        async with SqliteBroker.open(file, synchronous="OFF", clock=TrioClock()) as broker:
            yield broker


class TestSqliteResultBackend(ResultBackendContract):
    fake_clock = True

    @pytest.fixture
    async def backend(self, file):
        async with SqliteResultBackend.open(file, synchronous="OFF", clock=TrioClock()) as backend:
            yield backend


class TestSqliteJointStore(JointStoreContract):
    fake_clock = True

    @pytest.fixture
    def options(self):
        return {"synchronous": "OFF", "clock": TrioClock()}

    @pytest.fixture
    async def broker(self, file, options):
        async with SqliteBroker.open(file, **options) as broker:
            yield broker

    @pytest.fixture
    async def backend(self, file, options):
        async with SqliteResultBackend.open(file, **options) as backend:
            yield backend


class TestSqliteJointStoreOnTheRealClock(JointStoreContract):
    @pytest.fixture
    async def broker(self, file):
        async with SqliteBroker.open(file, synchronous="OFF") as broker:
            yield broker

    @pytest.fixture
    async def backend(self, file):
        async with SqliteResultBackend.open(file, synchronous="OFF") as backend:
            yield backend


def test_which_can_be_joined(file):
    """Only a backend on the same file, with the same options, is written by the broker's transactions."""
    broker = SqliteBroker.open(file)
    assert broker.join(SqliteResultBackend.open(f"sqlite:///{file}")) is not None
    assert broker.join(SqliteResultBackend.open(f"{file}2")) is None
    assert broker.join(SqliteResultBackend.open(file, synchronous="NORMAL")) is None
    assert broker.join(InMemoryResultBackend()) is None


class TestTwoConnections(DeliveryTests, LeaseTests, WaitingTests, DeadLetterTests, ChannelTests):
    """Those parts in which another process matters, and time."""

    short = 0.4

    @pytest.fixture
    async def broker(self, file):
        async with SqliteBroker.open(file, synchronous="OFF") as broker:
            yield broker

    @pytest.fixture
    async def another_broker(self, file, broker):
        async with as_elsewhere(SqliteBroker.open(file, synchronous="OFF")) as another:
            yield another


class TestTwoConnectionsOfTheBackend(ResultBackendContract):
    short = 0.4

    @pytest.fixture
    async def backend(self, file):
        async with SqliteResultBackend.open(file, synchronous="OFF") as backend:
            yield backend

    @pytest.fixture
    async def another_backend(self, file, backend):
        async with as_elsewhere(SqliteResultBackend.open(file, synchronous="OFF")) as another:
            yield another
