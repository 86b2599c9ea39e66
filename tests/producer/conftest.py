"""Fixtures for tests of producers: stores that fail on demand, and a producer over them."""

from __future__ import annotations

import pytest

from stem_trio import Stem
from tests.lifecycle.support import World
from tests.producer.support import job


@pytest.fixture
async def world():
    """Stores in memory, open, under the clock of the test."""
    world = World()
    async with world.broker, world.backend:
        yield world
    assert world.listener_errors == []


@pytest.fixture
def make_stem(world):
    """Makes producers over the stores that fail on demand."""

    def make(**options) -> Stem:
        options = {"tasks": [job], "signals": world.signals, "clock": world.clock} | options
        backend = options.pop("backend", world.backend)
        return Stem(world.broker, backend, **options)

    return make


@pytest.fixture
def stem(make_stem):
    """A producer over the stores that fail on demand."""
    return make_stem()
