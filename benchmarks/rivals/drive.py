"""How producers are driven: one call after the other, a hundred at once, in batches, and there and back."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

__all__ = ["AsyncProducer", "AsyncioProducer", "Producer", "ThreadProducer"]

R = TypeVar("R")

WIDTH: Final = 100
"""Callers at once."""
BATCH: Final = 1000
"""Tasks of one call to an API for batches."""
WARM_UP: Final = 20
"""Calls before the clock starts, for connections and caches."""
PATIENCE: Final = 20.0
"""Seconds that a result may take."""


class Producer(ABC):
    """What the harness asks of every contender. Times are seconds."""

    @abstractmethod
    def sequential(self, count: int) -> float:
        """How long it takes to enqueue so many no-ops one by one."""

    @abstractmethod
    def concurrent(self, count: int, *, sleepers: bool = False) -> float:
        """How long it takes to enqueue so many from 100 callers at once."""

    @abstractmethod
    def batch(self, count: int) -> float:
        """How long it takes to enqueue so many through the API for batches."""

    @abstractmethod
    def latency(self, count: int) -> list[float]:
        """How long each of so many tasks takes from enqueue to result, one after the other."""

    def close(self) -> None:  # noqa: B027 - for those that have something to close
        """The program ends."""


class AsyncProducer(Producer):
    """A contender whose API is async."""

    @abstractmethod
    def run(self, main: Callable[[], Awaitable[R]]) -> R:
        """Run an event loop."""

    @abstractmethod
    def session(self) -> AbstractAsyncContextManager[object]:
        """The block in which it is connected."""

    @abstractmethod
    async def all_at_once(self, caller: Callable[[], Coroutine[Any, Any, None]], width: int) -> None:
        """Run so many callers at the same time, until all have ended."""

    @abstractmethod
    async def enqueue(self, number: int) -> None:
        """Enqueue a no-op."""

    @abstractmethod
    async def enqueue_sleeper(self, number: int) -> None:
        """Enqueue a task that sleeps."""

    @abstractmethod
    async def round_trip(self, number: int) -> object:
        """Enqueue a task that returns its argument, and wait for what it returns."""

    async def enqueue_batch(self, numbers: Sequence[int]) -> None:
        """Enqueue no-ops by one call, where there is one for it."""
        raise NotImplementedError

    def sequential(self, count: int) -> float:
        """See `Producer.sequential`."""

        async def main() -> float:
            async with self.session():
                for number in range(WARM_UP):
                    await self.enqueue(number)
                started = time.perf_counter()
                for number in range(count):
                    await self.enqueue(number)
                return time.perf_counter() - started

        return self.run(main)

    def concurrent(self, count: int, *, sleepers: bool = False) -> float:
        """See `Producer.concurrent`."""
        enqueue = self.enqueue_sleeper if sleepers else self.enqueue
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                await enqueue(number)

        async def main() -> float:
            async with self.session():
                started = time.perf_counter()
                await self.all_at_once(caller, min(WIDTH, count))
                return time.perf_counter() - started

        return self.run(main)

    def batch(self, count: int) -> float:
        """See `Producer.batch`."""

        async def main() -> float:
            async with self.session():
                started = time.perf_counter()
                for first in range(0, count, BATCH):
                    await self.enqueue_batch(range(first, min(first + BATCH, count)))
                return time.perf_counter() - started

        return self.run(main)

    def latency(self, count: int) -> list[float]:
        """See `Producer.latency`."""

        async def main() -> list[float]:
            async with self.session():
                return [await self._timed(number) for number in range(count + WARM_UP // 10)][WARM_UP // 10 :]

        return self.run(main)

    async def _timed(self, number: int) -> float:
        started = time.perf_counter()
        value = await self.round_trip(number)
        taken = time.perf_counter() - started
        if value != number:
            raise RuntimeError(f"task {number} returned {value!r}")
        return taken


class AsyncioProducer(AsyncProducer):
    """A contender on asyncio; runs on uvloop, which is the faster loop."""

    def run(self, main: Callable[[], Awaitable[R]]) -> R:
        """See `AsyncProducer.run`."""
        import uvloop

        async def coroutine() -> R:
            return await main()

        result: R = uvloop.run(coroutine())
        return result

    async def all_at_once(self, caller: Callable[[], Coroutine[Any, Any, None]], width: int) -> None:
        """See `AsyncProducer.all_at_once`."""
        import asyncio

        await asyncio.gather(*(caller() for _ in range(width)))


class ThreadProducer(Producer):
    """A contender whose API blocks: callers at the same time are threads."""

    @abstractmethod
    def enqueue(self, number: int) -> None:
        """Enqueue a no-op."""

    @abstractmethod
    def enqueue_sleeper(self, number: int) -> None:
        """Enqueue a task that sleeps."""

    @abstractmethod
    def round_trip(self, number: int) -> object:
        """Enqueue a task that returns its argument, and wait for what it returns."""

    def sequential(self, count: int) -> float:
        """See `Producer.sequential`."""
        for number in range(WARM_UP):
            self.enqueue(number)
        started = time.perf_counter()
        for number in range(count):
            self.enqueue(number)
        return time.perf_counter() - started

    def concurrent(self, count: int, *, sleepers: bool = False) -> float:
        """See `Producer.concurrent`."""
        enqueue = self.enqueue_sleeper if sleepers else self.enqueue
        lock = threading.Lock()
        numbers = iter(range(count))

        def take() -> Iterator[int]:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                yield number

        def caller(_: int) -> None:
            for number in take():
                enqueue(number)

        width = min(WIDTH, count)
        with ThreadPoolExecutor(width) as threads:
            started = time.perf_counter()
            list(threads.map(caller, range(width)))
            return time.perf_counter() - started

    def batch(self, count: int) -> float:
        """See `Producer.batch`."""
        raise NotImplementedError

    def latency(self, count: int) -> list[float]:
        """See `Producer.latency`."""
        taken: list[float] = []
        for number in range(count + WARM_UP // 10):
            started = time.perf_counter()
            value = self.round_trip(number)
            taken.append(time.perf_counter() - started)
            if value != number:
                raise RuntimeError(f"task {number} returned {value!r}")
        return taken[WARM_UP // 10 :]
