"""Arq. Its worker polls each 500 ms, and so does who waits for a result; tuned, both poll each millisecond."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from rivals.drive import PATIENCE, AsyncioProducer
from rivals.mark import begin, end, mark
from rivals.settings import CONCURRENCY, TUNED, URL

POLL = 0.001 if TUNED else 0.5
QUIET = {"version": 1, "disable_existing_loggers": False, "loggers": {"arq": {"level": "WARNING"}}}


async def noop(_context: Any, number: int) -> None:
    """Count."""
    mark()


async def echo(_context: Any, number: int) -> int:
    """Return the argument."""
    return number


async def sleeper(_context: Any, number: int) -> None:
    """Sleep."""
    begin()
    await asyncio.sleep(0.1)
    end()


class WorkerSettings:
    """What arq's command line reads."""

    functions = (noop, echo, sleeper)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = CONCURRENCY
    poll_delay = POLL


class ArqProducer(AsyncioProducer):
    """Enqueues through a pool."""

    def __init__(self) -> None:
        self._pool: Any = None

    def session(self) -> AbstractAsyncContextManager[object]:
        """See `AsyncProducer.session`."""
        return self._connected()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[None, None]:
        self._pool = await create_pool(WorkerSettings.redis_settings)
        try:
            yield
        finally:
            await self._pool.aclose()

    async def enqueue(self, number: int) -> None:
        """See `AsyncProducer.enqueue`."""
        await self._pool.enqueue_job("noop", number)

    async def enqueue_sleeper(self, number: int) -> None:
        """See `AsyncProducer.enqueue_sleeper`."""
        await self._pool.enqueue_job("sleeper", number)

    async def round_trip(self, number: int) -> object:
        """See `AsyncProducer.round_trip`."""
        job = await self._pool.enqueue_job("echo", number)
        return await job.result(timeout=PATIENCE, poll_delay=POLL)


producer = ArqProducer
