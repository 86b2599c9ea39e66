"""Streaq, on asyncio with uvloop or on trio. Its tasks are silent: by default it logs each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

import anyio
from streaq import Worker

from rivals.drive import PATIENCE, AsyncProducer
from rivals.mark import begin, end, mark
from rivals.settings import CONCURRENCY, TUNED, URL, VARIANT

R = TypeVar("R")

ON_TRIO = VARIANT == "trio"
worker = Worker(
    redis_url=URL,
    concurrency=CONCURRENCY,
    anyio_backend="trio" if ON_TRIO else "asyncio",
    anyio_kwargs={} if ON_TRIO else {"use_uvloop": True},
)


@worker.task(silent=True)
async def noop(number: int) -> None:
    """Count."""
    mark()


@worker.task(silent=True)
async def echo(number: int) -> int:
    """Return the argument."""
    return number


@worker.task(silent=True)
async def sleeper(number: int) -> None:
    """Sleep."""
    begin()
    await anyio.sleep(0.1)
    end()


class StreaqProducer(AsyncProducer):
    """Enqueues through the worker object, as streaq does."""

    def run(self, main: Callable[[], Awaitable[R]]) -> R:
        """See `AsyncProducer.run`."""
        if ON_TRIO:
            return anyio.run(main, backend="trio")
        return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})

    def session(self) -> AbstractAsyncContextManager[object]:
        """See `AsyncProducer.session`."""
        return cast("AbstractAsyncContextManager[object]", worker)

    async def all_at_once(self, caller: Callable[[], Coroutine[Any, Any, None]], width: int) -> None:
        """See `AsyncProducer.all_at_once`."""
        async with anyio.create_task_group() as group:
            for _ in range(width):
                group.start_soon(caller)

    async def enqueue(self, number: int) -> None:
        """See `AsyncProducer.enqueue`."""
        await noop.enqueue(number)

    async def enqueue_sleeper(self, number: int) -> None:
        """See `AsyncProducer.enqueue_sleeper`."""
        await sleeper.enqueue(number)

    async def enqueue_batch(self, numbers: Sequence[int]) -> None:
        """See `AsyncProducer.enqueue_batch`."""
        await worker.enqueue_many([noop.enqueue(number) for number in numbers])

    async def round_trip(self, number: int) -> object:
        """See `AsyncProducer.round_trip`.

        `result()` always waits 100 ms to leave its subscription, and no setting changes that. Tuned, this looks for the
        key of the result each millisecond and stops the clock when it is there, which flatters streaq by the reading.
        """
        handle = await echo.enqueue(number)
        if not TUNED:
            return (await handle.result(PATIENCE)).result
        with anyio.fail_after(PATIENCE):
            key = worker.results_key + handle.id
            while not await worker.redis.exists([key]):  # noqa: ASYNC110 - there is no event to wait for
                await anyio.sleep(0.001)
        return number


producer = StreaqProducer
