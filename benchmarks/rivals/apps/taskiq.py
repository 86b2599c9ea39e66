"""taskiq with the streams broker and the result backend of taskiq-redis; results are kept for a day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from rivals.drive import PATIENCE, AsyncioProducer
from rivals.mark import begin, end, mark
from rivals.settings import TUNED, URL

_backend: Any = RedisAsyncResultBackend(redis_url=URL, result_ex_time=86_400)
broker = RedisStreamBroker(url=URL).with_result_backend(_backend)


@broker.task
async def noop(number: int) -> None:
    """Count."""
    mark()


@broker.task
async def echo(number: int) -> int:
    """Return the argument."""
    return number


@broker.task
async def sleeper(number: int) -> None:
    """Sleep."""
    begin()
    await asyncio.sleep(0.1)
    end()


class TaskiqProducer(AsyncioProducer):
    """Enqueues through the broker."""

    def session(self) -> AbstractAsyncContextManager[object]:
        """See `AsyncProducer.session`."""
        return _started()

    async def enqueue(self, number: int) -> None:
        """See `AsyncProducer.enqueue`."""
        await noop.kiq(number)

    async def enqueue_sleeper(self, number: int) -> None:
        """See `AsyncProducer.enqueue_sleeper`."""
        await sleeper.kiq(number)

    async def round_trip(self, number: int) -> object:
        """See `AsyncProducer.round_trip`. By default it looks for the result each 200 ms."""
        sent = await echo.kiq(number)
        interval = 0.001 if TUNED else 0.2
        return (await sent.wait_result(check_interval=interval, timeout=PATIENCE)).return_value


@asynccontextmanager
async def _started() -> AsyncGenerator[None, None]:
    await broker.startup()
    try:
        yield
    finally:
        await broker.shutdown()


producer = TaskiqProducer
