"""Tells handlers, and listeners, that soft time limits have passed."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final, final

import trio

from ..events import TaskSoftTimeout
from .held import Phase

if TYPE_CHECKING:
    from .held import Held
    from .notify import EventPump
    from .setup import Setup

__all__ = ["SoftLimits"]

_COMPACT_AT: Final = 1024


@final
class SoftLimits:
    """One timer for all soft limits of the worker. Tasks without one never meet it."""

    def __init__(self, setup: Setup, pump: EventPump) -> None:
        self._setup = setup
        self._pump = pump
        self._heap: list[tuple[float, int, Held]] = []
        self._order = itertools.count()
        self._kick = trio.Event()
        self._compact_at = _COMPACT_AT

    def add(self, held: Held, limit: float) -> None:
        """The handler of a delivery starts now, and has a soft limit."""
        heapq.heappush(self._heap, (trio.current_time() + limit, next(self._order), held))
        if len(self._heap) >= self._compact_at:
            # Handlers that ended before their limit leave their entries behind; they must not pile up.
            self._heap = [entry for entry in self._heap if entry[2].phase is Phase.RUNNING]
            heapq.heapify(self._heap)
            self._compact_at = max(_COMPACT_AT, 2 * len(self._heap))
        if not self._kick.is_set():
            self._kick.set()

    async def run(self) -> None:
        """Tell of limits as they pass, for ever.

        Cancellation: limits that have not passed are not told of.
        """
        while True:
            self._kick = trio.Event()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                held = heapq.heappop(self._heap)[2]
                if held.phase is Phase.RUNNING:
                    self._reach(held)
            if self._heap:
                with trio.move_on_at(self._heap[0][0]):
                    await self._kick.wait()
            else:
                await self._kick.wait()

    def _reach(self, held: Held) -> None:
        held.reach_soft_limit()
        signal = self._setup.signals.task_soft_timeout
        if signal:
            delivery = held.delivery
            event = TaskSoftTimeout(
                envelope=delivery.envelope,
                attempt=delivery.attempt,
                deliveries=delivery.deliveries,
                worker=self._setup.worker_id,
                occurred_at=self._setup.now(),
                limit=delivery.envelope.soft_time_limit or 0.0,
            )
            self._pump.put(signal, event)
