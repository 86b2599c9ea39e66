"""Calls made at the same time, carried out as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from ...errors import StoreClosedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Gatherer"]

T = TypeVar("T")
R = TypeVar("R")


@final
class _Entry(Generic[T, R]):
    __slots__ = ("done", "error", "items", "results")

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.done = trio.Event()
        self.results: list[R] | None = None
        self.error: Exception | None = None


@final
class Gatherer(Generic[T, R]):
    """Puts the items of concurrent calls into common batches.

    A batch leaves at the next scheduler tick; what comes while one is under way makes up the next. So a single call is
    not held up, and a hundred at once cost one or two round trips.

    Args:
        carry_out: handles a batch; returns a result for each item.
        nursery: where batches are carried out, apart from the callers: one that is cancelled does not take the others'.
        limit: items that a batch begins to be full with.
    """

    def __init__(
        self, carry_out: Callable[[Sequence[T]], Awaitable[list[R]]], nursery: trio.Nursery, *, limit: int
    ) -> None:
        self._carry_out = carry_out
        self._nursery = nursery
        self._limit = limit
        self._waiting: list[_Entry[T, R]] = []
        self._busy = False

    async def call(self, items: Sequence[T]) -> list[R]:
        """Have items handled, and return their results.

        Cancellation: they are handled or not; once this has returned, nothing begins to be done about them.

        Raises:
            StoreError: what `carry_out` raised for the batch.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        entry: _Entry[T, R] = _Entry(items)
        self._waiting.append(entry)
        if not self._busy:
            self._busy = True
            self._nursery.start_soon(self._work)
        try:
            await entry.done.wait()
        except trio.Cancelled:
            if entry in self._waiting:
                self._waiting.remove(entry)
            raise
        if entry.error is not None:
            raise entry.error
        assert entry.results is not None, "an entry that is done has one or the other"
        return entry.results

    async def _work(self) -> None:
        batch: list[_Entry[T, R]] = []
        try:
            while self._waiting:
                batch = self._take()
                await self._handle(batch)
                batch = []
        finally:
            self._busy = False
            for entry in (*batch, *self._waiting):
                # Only when the store is being closed.
                entry.error = StoreClosedError("the Redis store was closed")
                entry.done.set()

    def _take(self) -> list[_Entry[T, R]]:
        count, size = 0, 0
        for entry in self._waiting:
            count += 1
            size += len(entry.items)
            if size >= self._limit:
                break
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _handle(self, batch: list[_Entry[T, R]]) -> None:
        try:
            results = await self._carry_out([item for entry in batch for item in entry.items])
        except Exception as error:  # noqa: BLE001 - each caller gets it
            for entry in batch:
                entry.error = _copy(error)
                entry.done.set()
            return
        first = 0
        for entry in batch:
            entry.results = results[first : first + len(entry.items)]
            first += len(entry.items)
            entry.done.set()


def _copy(error: Exception) -> Exception:
    """An error for one of several callers: an exception that is raised in two places mixes up their tracebacks."""
    if isinstance(error, StoreUnavailableError):
        copy: Exception = StoreUnavailableError(str(error), maybe_applied=error.maybe_applied)
    else:
        try:
            copy = type(error)(*error.args)
        except TypeError:
            return error
    copy.__cause__ = error
    return copy
