"""stem-trio enqueued from asyncio on uvloop, with trio as its guest. The worker is that of `stem`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from rivals.apps.stem import TASKS, echo, noop, sleeper
from rivals.drive import AsyncioProducer
from rivals.settings import URL
from stem_trio import AsyncioStem

__all__ = ["producer"]


class HostedProducer(AsyncioProducer):
    """Enqueues through one host."""

    def __init__(self) -> None:
        self._stem = AsyncioStem.from_url(URL, tasks=TASKS)

    def session(self) -> AbstractAsyncContextManager[object]:
        """See `AsyncProducer.session`."""
        return self._stem

    async def enqueue(self, number: int) -> None:
        """See `AsyncProducer.enqueue`."""
        await noop.enqueue(self._stem, number)

    async def enqueue_sleeper(self, number: int) -> None:
        """See `AsyncProducer.enqueue_sleeper`."""
        await sleeper.enqueue(self._stem, number)

    async def enqueue_batch(self, numbers: Sequence[int]) -> None:
        """See `AsyncProducer.enqueue_batch`."""
        await self._stem.enqueue_many([noop.bind(number) for number in numbers])

    async def round_trip(self, number: int) -> object:
        """See `AsyncProducer.round_trip`."""
        handle = await echo.enqueue(self._stem, number)
        return await handle.result(timeout=20)


producer = HostedProducer
