"""stem-trio, as its documentation shows it: no option but the concurrency, which all contenders share.

As a program it is the worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import trio

from rivals.drive import AsyncProducer
from rivals.mark import begin, end, mark
from rivals.settings import CONCURRENCY, URL, VARIANT
from stem_trio import PayloadSigner, SigningKey, StemClient, Task, Worker, task
from stem_trio.stores.redis import RedisBroker, RedisResultBackend

R = TypeVar("R")


@task(name="noop")
async def noop(number: int) -> None:
    """Count."""
    mark()


@task(name="echo")
async def echo(number: int) -> int:
    """Return the argument."""
    return number


@task(name="sleeper")
async def sleeper(number: int) -> None:
    """Sleep."""
    begin()
    await trio.sleep(0.1)
    end()


TASKS: list[Task[..., ..., Any, Any]] = [noop, echo, sleeper]
SIGNER = PayloadSigner([SigningKey.hmac_sha256("bench", bytes(range(32)))]) if VARIANT == "signed" else None


class StemProducer(AsyncProducer):
    """Enqueues through one client."""

    def __init__(self) -> None:
        self._client = StemClient(RedisBroker.connect(URL), RedisResultBackend.connect(URL), tasks=TASKS, signer=SIGNER)

    def run(self, main: Callable[[], Awaitable[R]]) -> R:
        """See `AsyncProducer.run`."""
        return trio.run(main)

    def session(self) -> AbstractAsyncContextManager[object]:
        """See `AsyncProducer.session`."""
        return self._client

    async def all_at_once(self, caller: Callable[[], Coroutine[Any, Any, None]], width: int) -> None:
        """See `AsyncProducer.all_at_once`."""
        async with trio.open_nursery() as nursery:
            for _ in range(width):
                nursery.start_soon(caller)

    async def enqueue(self, number: int) -> None:
        """See `AsyncProducer.enqueue`."""
        await noop.enqueue(self._client, number)

    async def enqueue_sleeper(self, number: int) -> None:
        """See `AsyncProducer.enqueue_sleeper`."""
        await sleeper.enqueue(self._client, number)

    async def enqueue_batch(self, numbers: Sequence[int]) -> None:
        """See `AsyncProducer.enqueue_batch`."""
        await self._client.enqueue_many([noop.bind(number) for number in numbers])

    async def round_trip(self, number: int) -> object:
        """See `AsyncProducer.round_trip`."""
        handle = await echo.enqueue(self._client, number)
        return await handle.result(timeout=20)


producer = StemProducer


async def work() -> None:
    """The worker, until a signal ends it."""
    async with RedisBroker.connect(URL) as broker, RedisResultBackend.connect(URL) as backend:
        await Worker(broker, backend, tasks=TASKS, concurrency=CONCURRENCY, signer=SIGNER).run()


if __name__ == "__main__":
    trio.run(work)
