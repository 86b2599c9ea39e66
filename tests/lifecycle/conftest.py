"""Fixtures for tests of a worker's life."""

from __future__ import annotations

import pytest

from tests.lifecycle.support import World


@pytest.fixture
async def world():
    """Stores, a producer, and what makes workers; no listener may fail."""
    world = World()
    async with world.broker, world.backend:
        yield world
    assert world.listener_errors == []
