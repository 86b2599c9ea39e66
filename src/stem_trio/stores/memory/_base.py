"""Being open or closed, and carrying moments from one trio run into the next: what both stores in memory share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import trio

from ...abc import Store
from ...errors import StoreClosedError, StoreError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """A store in memory; opened by one ``async with`` block at a time, within which anybody may use it.

    The content stays when the block is left and is there again in the next one. Time goes on meanwhile, except between
    two trio runs: their clocks have nothing to do with each other, so what was due in a minute still is.
    """

    def __init__(self) -> None:
        self._is_open = False
        self._clock_of_run: trio.abc.Clock | None = None
        self._closed_at = 0.0

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreError: it is open already. Use the open store, it may be shared, or make another one.
        """
        await trio.lowlevel.checkpoint()
        if self._is_open:
            raise StoreError(f"this {type(self).__name__} is open already: share it, or make another one")
        # Each run has a clock object of its own; keeping it here keeps its identity from being used again.
        clock = trio.lowlevel.current_clock()
        if self._clock_of_run is not None and clock is not self._clock_of_run:
            self._rebase(trio.current_time() - self._closed_at)
        self._clock_of_run = clock
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store; whoever waits in it gets a `StoreClosedError`."""
        self._is_open = False
        self._closed_at = trio.current_time()
        self._wake_all()
        # Shielded, so that closing does not put a cancellation in place of the error that is on its way.
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _enter_operation(self) -> None:
        """The one checkpoint of an operation. What follows it runs without another, hence whole or not at all."""
        await trio.lowlevel.checkpoint()
        self._require_open()

    def _require_open(self) -> None:
        if not self._is_open:
            raise StoreClosedError(f"this {type(self).__name__} is used outside of its `async with` block")

    @abstractmethod
    def _rebase(self, shift: float) -> None:
        """Move every moment that is kept by `shift` seconds."""

    @abstractmethod
    def _wake_all(self) -> None:
        """Let everybody who waits look again, and find the store closed."""
