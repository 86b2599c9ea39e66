"""Wall clocks: what the runtime reads when a moment must mean something outside of this process.

Intervals, deadlines and sleeps never use these; they run on `trio.current_time`, which tests replace with trio's own
`MockClock`. A wall clock is an object with one method, so that tests can let it follow that fake clock too.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol, final

import trio

__all__ = ["SystemClock", "TrioClock", "WallClock", "to_datetime"]


class WallClock(Protocol):
    """What the runtime asks for the time of day."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...


@final
class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()


@final
class TrioClock:
    """A wall clock that advances with `trio.current_time`, hence with a fake clock in tests.

    Args:
        start: what the clock shows when it is first read inside the current trio run, in seconds since the epoch.
    """

    __slots__ = ("_offset", "_start")

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        # Each trio run counts its time from a moment of its own, so the offset is the run's.
        self._offset: trio.lowlevel.RunVar[float | None] = trio.lowlevel.RunVar("stem_trio.TrioClock", None)

    def now(self) -> float:
        """Seconds since the epoch, UTC.

        Raises:
            RuntimeError: outside of a trio run.
        """
        current = trio.current_time()
        offset = self._offset.get()
        if offset is None:
            offset = self._start - current
            self._offset.set(offset)
        return current + offset


def to_datetime(seconds: float) -> datetime:
    """An aware UTC datetime from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)
