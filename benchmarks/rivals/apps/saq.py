"""SAQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from saq import Queue

from rivals.drive import PATIENCE, AsyncioProducer
from rivals.mark import begin, end, mark
from rivals.settings import CONCURRENCY, TUNED, URL

queue = Queue.from_url(URL)


async def noop(_context: Any, *, number: int) -> None:
    """Count."""
    mark()


async def echo(_context: Any, *, number: int) -> int:
    """Return the argument."""
    return number


async def sleeper(_context: Any, *, number: int) -> None:
    """Sleep."""
    begin()
    await asyncio.sleep(0.1)
    end()


settings = {"queue": queue, "functions": [noop, echo, sleeper], "concurrency": CONCURRENCY}


class SaqProducer(AsyncioProducer):
    """Enqueues through a queue object."""

    def session(self) -> AbstractAsyncContextManager[object]:
        """See `AsyncProducer.session`."""
        return _connected()

    async def enqueue(self, number: int) -> None:
        """See `AsyncProducer.enqueue`."""
        await queue.enqueue("noop", number=number)

    async def enqueue_sleeper(self, number: int) -> None:
        """See `AsyncProducer.enqueue_sleeper`."""
        await queue.enqueue("sleeper", number=number)

    async def round_trip(self, number: int) -> object:
        """See `AsyncProducer.round_trip`. By default it looks for the result each 500 ms."""
        interval = 0.001 if TUNED else 0.5
        return await queue.apply("echo", timeout=PATIENCE, poll_interval=interval, number=number)


@asynccontextmanager
async def _connected() -> AsyncGenerator[None, None]:
    await queue.connect()
    try:
        yield
    finally:
        await queue.disconnect()


producer = SaqProducer
