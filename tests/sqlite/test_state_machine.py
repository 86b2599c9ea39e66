"""Any history of the stores on SQLite, as far as hypothesis can think of one, is the one that the model has."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager

from hypothesis import settings

from stem_trio.clock import TrioClock
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend
from tests.stores.state_machine import StoreMachine, StoresUnderTest

RETENTION = 100.0


@asynccontextmanager
async def stores():
    """Broker and backend on one new file."""
    with tempfile.TemporaryDirectory() as directory:
        clock = TrioClock()
        options = {"synchronous": "OFF", "clock": clock}
        async with (
            SqliteBroker.open(f"{directory}/stem.db", dead_letter_retention=RETENTION, **options) as broker,
            SqliteResultBackend.open(f"{directory}/stem.db", **options) as backend,
        ):
            yield broker, backend


class SqliteMachine(StoreMachine):
    stores = StoresUnderTest(open=lambda stepper: stepper.enter(stores()), dead_letter_retention=RETENTION)


TestSqlite = SqliteMachine.TestCase
TestSqlite.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
