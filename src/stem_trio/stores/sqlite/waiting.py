"""Claims that wait for work, and who of them is woken.

One waiter is woken for each change of a queue, so that a hundred idle workers do not all jump at one task. Whoever
stops waiting, for whatever reason, wakes the next one of its queues: to take what is left, to watch over the leases
that were just given, or because the wake-up it was given meant somebody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Waiter", "Waiters"]


@final
class Waiter:
    """A claim that waits.

    Args:
        queues: for work in any of these.
    """

    __slots__ = ("_task", "queues", "woken")

    def __init__(self, queues: Sequence[str]) -> None:
        self.queues = queues
        self.woken = False
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Let it look again."""
        self.woken = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait(self, until: float) -> None:
        """Wait to be woken, or for a moment by `trio.current_time`.

        Cancellation: as if it had not been called.
        """

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_at(until):
            if self.woken:
                await trio.lowlevel.checkpoint()
            else:
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)


@final
class Waiters:
    """Those of one broker."""

    def __init__(self) -> None:
        self._by_queue: dict[str, dict[Waiter, None]] = {}

    def __contains__(self, queue: str) -> bool:
        return queue in self._by_queue

    def join(self, queues: Sequence[str]) -> Waiter:
        """Begin to wait: from now on no change is missed."""
        waiter = Waiter(queues)
        for queue in queues:
            self._by_queue.setdefault(queue, {})[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting."""
        for queue in waiter.queues:
            waiters = self._by_queue.get(queue)
            if waiters is not None and waiter in waiters:
                del waiters[waiter]
                if not waiters:
                    del self._by_queue[queue]
        self.notify(waiter.queues)

    def notify(self, queues: Iterable[str]) -> None:
        """Something has changed in these queues."""
        for queue in queues:
            for waiter in self._by_queue.get(queue, ()):
                if not waiter.woken:
                    waiter.wake()
                    break

    def notify_all(self) -> None:
        """Something may have changed in any queue."""
        self.notify(list(self._by_queue))

    def wake_all(self) -> None:
        """Let everybody look again."""
        for waiters in self._by_queue.values():
            for waiter in waiters:
                waiter.wake()
