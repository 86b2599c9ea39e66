"""Calls to stores that must not wait for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from .errors import StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["bounded"]

R = TypeVar("R")


async def bounded(operation: str, seconds: float, call: Callable[[], Awaitable[R]]) -> R:
    """Await a call to a store, for so many seconds at most.

    Cancellation: as the call's own.

    Raises:
        StoreTimeoutError: it did not return in time. It was cancelled, and may have been applied.
    """
    with trio.move_on_after(seconds):
        return await call()
    raise StoreTimeoutError(operation, seconds)
