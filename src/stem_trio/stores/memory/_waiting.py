"""Claims that wait for work, and who of them is woken.

A waiter is woken for each task that gets ready, no more, so that a hundred idle workers do not all jump at one task. It
may take another task than the one it was woken for, or none; whoever has taken therefore wakes the next waiter while
ready tasks are left. No wake-up is lost to a cancellation: trio does not cancel a task that has been rescheduled before
it runs again, and what it does then, up to returning what it took, has no checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._queue import TaskQueue

__all__ = ["Waiter", "notify", "wait_for_work"]


@final
class Waiter:
    """A claim that waits.

    Args:
        queues: for work in any of these.
        until: when it looks again by itself.
    """

    __slots__ = ("_queues", "_task", "until")

    def __init__(self, queues: Sequence[TaskQueue], until: float) -> None:
        self._task = trio.lowlevel.current_task()
        self._queues = queues
        self.until = until
        for queue in queues:
            queue.waiters[self] = None

    def leave(self) -> None:
        """Stop waiting."""
        for queue in self._queues:
            del queue.waiters[self]

    def wake(self) -> None:
        """Let the claim look again. To be called once, and not after `leave`."""
        self.leave()
        trio.lowlevel.reschedule(self._task)


async def wait_for_work(queues: Sequence[TaskQueue], until: float) -> None:
    """Wait for a change in one of the queues, or for a moment by `trio.current_time`.

    Cancellation: as if it had not been called.
    """
    waiter = Waiter(queues, until)

    def abort(_: object) -> trio.lowlevel.Abort:
        waiter.leave()
        return trio.lowlevel.Abort.SUCCEEDED

    with trio.move_on_at(until):
        await trio.lowlevel.wait_task_rescheduled(abort)


def notify(queue: TaskQueue) -> None:
    """Wake whom a change of the queue concerns; to be called after anything that may have made one."""
    if not queue.waiters:
        return
    waiters = list(queue.waiters)
    for waiter in waiters[: queue.ready]:
        waiter.wake()
    for waiter in waiters[queue.ready :]:
        # It would sleep past a moment of which it could not know when it began.
        if waiter.until > queue.ready_at:
            waiter.wake()
