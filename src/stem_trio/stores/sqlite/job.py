"""One piece of work for the thread of a file, and the trio task that waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Moment
    from .transaction import Change, Transaction

__all__ = ["Job"]

T = TypeVar("T")


@final
class Job(Generic[T]):
    """One piece of work, carried out in a transaction.

    Args:
        work: what to do. It may be done twice, the first time to be rolled back; it must change nothing but the file,
            unless that does no harm.
        writes: whether it may write.
        moment: when it is done, where a clock of the caller's tells; else the store's clock does.
        then: called in the trio thread with the result, also when nobody waits for it any more.
        on_abandoned: called in the trio thread with the result if its caller was cancelled meanwhile.

    Attributes:
        task: who waits for it.
        change: what it has changed.
        result: what it has returned.
        error: what it has raised.
        delivered: whether result or error are there for who waits.
    """

    __slots__ = (
        "_abandoned",
        "_on_abandoned",
        "_ticket",
        "change",
        "delivered",
        "error",
        "moment",
        "result",
        "task",
        "then",
        "work",
        "writes",
    )

    def __init__(
        self,
        work: Callable[[Transaction], T],
        *,
        writes: bool,
        moment: Moment | None = None,
        then: Callable[[T], None] | None = None,
        on_abandoned: Callable[[T], None] | None = None,
    ) -> None:
        self.work = work
        self.writes = writes
        self.moment = moment
        self.then = then
        self.task: trio.lowlevel.Task | None = None
        self.change: Change | None = None
        self.result: list[T] = []
        self.error: Exception | None = None
        self.delivered = False
        self._on_abandoned = on_abandoned
        self._abandoned = False
        # Whoever takes it decides: the thread, that the job is done, or its caller, that it is not.
        self._ticket = [None]

    def begin(self) -> bool:
        """Have it done; False if it was withdrawn. For the thread, which has it done then, however often."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def abandon(self) -> None:
        """Its caller is gone: if it has not begun it is not done at all."""
        self.task = None
        if not self.begin():
            self._abandoned = True

    def deliver(self) -> None:
        """Result or error are there; called in the trio thread."""
        self.delivered = True
        if self.error is None and self.result:
            if self.then is not None:
                self.then(self.result[0])
            if self._abandoned and self._on_abandoned is not None:
                self._on_abandoned(self.result[0])
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
