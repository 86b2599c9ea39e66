"""Fixtures of the fault tests: stores, a ledger, and a seed that is told when a test fails."""

from __future__ import annotations

import os
import random
import secrets
from urllib.parse import quote

import pytest

from tests.faults.ledger import Ledger
from tests.faults.rig import Rig
from tests.faults.server import running

SEED = "STEM_TEST_SEED"
"""Environment variable that sets the seed of all of these tests."""


@pytest.fixture
def sqlite_url(tmp_path):
    """A folder for files, one for each prefix."""
    folder = tmp_path / "stores"
    folder.mkdir()
    return f"sqlite:///{quote(str(folder))}"


@pytest.fixture(params=["redis", "sqlite"])
def store_url(request):
    """Each store that processes can share; `on_a_server` leaves out those that have no server."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(autouse=True)
def seed(request):
    """What everything that is left to chance starts from; printed, and shown with a failure."""
    number = int(os.environ.get(SEED) or secrets.randbelow(10**6))
    print(f"seed {number}; to replay: {SEED}={number} pytest {request.node.nodeid!r}")
    random.seed(number)
    return number


@pytest.fixture
def ledger(tmp_path):
    """An empty ledger."""
    ledger = Ledger(tmp_path / "ledger")
    yield ledger
    ledger.close()


@pytest.fixture
def rig(store_url, prefix, ledger, seed):
    """What most tests need, on the store that all of them share."""
    return Rig(store_url, prefix, ledger, seed)


@pytest.fixture
async def own_server(tmp_path):
    """A server of the test's own, which keeps nothing."""
    async with running(tmp_path / "server", durable=False) as server:
        yield server


@pytest.fixture
async def durable_server(tmp_path):
    """A server of the test's own, which keeps everything that it has answered for."""
    async with running(tmp_path / "server", durable=True) as server:
        yield server
