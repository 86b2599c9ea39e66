"""Sends the events of a worker to their listeners, apart from the work, in the order in which they happened."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import trio

if TYPE_CHECKING:
    from ..signals import Signal

__all__ = ["EventPump"]

E = TypeVar("E")


@final
class EventPump:
    """A queue of events, and the task that hands them to the listeners.

    Settling and renewing never wait for a listener. What does is claiming: a worker whose listeners lag behind by
    more than `HIGH_WATER` events takes no new tasks until they have caught up, so that the queue is bounded.
    """

    HIGH_WATER: Final = 10_000

    def __init__(self) -> None:
        self._queue: deque[tuple[Signal[Any], Any]] = deque()
        self._filled = trio.Event()
        self._emptied = trio.Event()
        self._emptied.set()

    def put(self, signal: Signal[E], event: E) -> None:
        """Have an event sent. Call it only when the signal has listeners: making events costs."""
        self._queue.append((signal, event))
        if not self._filled.is_set():
            self._filled.set()
            self._emptied = trio.Event()

    @property
    def lagging(self) -> bool:
        """Whether the listeners are too far behind for new tasks to be claimed."""
        return len(self._queue) > self.HIGH_WATER

    async def wait_empty(self) -> None:
        """Wait until every event so far has been sent.

        Cancellation: changes nothing.
        """
        await self._emptied.wait()

    async def run(self) -> None:
        """Send events as they come, for ever.

        Cancellation: the listener under way is cancelled, events in the queue stay there.
        """
        while True:
            await self._filled.wait()
            await self.send_rest()
            self._filled = trio.Event()
            self._emptied.set()

    async def send_rest(self) -> None:
        """Send what is in the queue; for when `run` has ended, too.

        Cancellation: as `run`.
        """
        while self._queue:
            signal, event = self._queue.popleft()
            await signal.send(event)
