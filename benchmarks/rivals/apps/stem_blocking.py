"""stem-trio enqueued from blocking code, by threads. The worker is that of `stem`."""

from __future__ import annotations

import time

from rivals.apps.stem import TASKS, echo, noop, sleeper
from rivals.drive import BATCH, ThreadProducer
from rivals.settings import URL
from stem_trio import BlockingStem

__all__ = ["producer"]


class BlockingProducer(ThreadProducer):
    """Enqueues through one host, which is open until the program ends."""

    def __init__(self) -> None:
        self._stem = BlockingStem.from_url(URL, tasks=TASKS).open()

    def close(self) -> None:
        """See `Producer.close`."""
        self._stem.close()

    def enqueue(self, number: int) -> None:
        """See `ThreadProducer.enqueue`."""
        self._stem.submit(noop.bind(number))

    def enqueue_sleeper(self, number: int) -> None:
        """See `ThreadProducer.enqueue_sleeper`."""
        self._stem.submit(sleeper.bind(number))

    def batch(self, count: int) -> float:
        """See `Producer.batch`."""
        started = time.perf_counter()
        for first in range(0, count, BATCH):
            self._stem.enqueue_many([noop.bind(number) for number in range(first, min(first + BATCH, count))])
        return time.perf_counter() - started

    def round_trip(self, number: int) -> object:
        """See `ThreadProducer.round_trip`."""
        return self._stem.submit(echo.bind(number)).result(timeout=20)


producer = BlockingProducer
