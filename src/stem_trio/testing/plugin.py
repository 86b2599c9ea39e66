"""The pytest plugin: fixtures for programs that use stem-trio. Pytest loads it itself once the package is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .app import RecordingStemApp

__all__ = ["stem_app"]


@pytest.fixture
async def stem_app() -> AsyncIterator[Callable[..., Awaitable[RecordingStemApp]]]:
    """Makes apps in memory that are shut down when the test ends; for tests that run on trio (pytest-trio).

    ``app = await stem_app(tasks=[...])``; it takes the options of `StemApp`. Each has stores, signals and a wall clock
    of its own; the clock follows trio's, so that with ``autojump_clock`` hours pass at once.
    """
    from .app import RecordingStemApp  # noqa: PLC0415 - pytest loads this module in every run; the runtime costs time

    stop = trio.Event()

    async def run(options: dict[str, Any], *, task_status: trio.TaskStatus[RecordingStemApp]) -> None:
        async with RecordingStemApp.for_test(**options) as app:
            task_status.started(app)
            await stop.wait()

    # The apps live in tasks of the fixture's: a nursery must be closed by the task that opened it, and that is not the
    # test's.
    async with trio.open_nursery() as nursery:

        async def make(**options: Any) -> RecordingStemApp:
            app: RecordingStemApp = await nursery.start(run, options)
            return app

        yield make
        stop.set()
