"""The store's clock.

All processes that use a file are on one machine, so they share its clocks. The time of day may be set while a task is
leased or delayed, so the store does not count by it: its time runs with the machine's time since boot, which nobody can
set. What the file keeps is the distance between the two. After a boot, which the machine's boot id tells, the store's
time goes on from where it was, plus what the time of day says has passed; never back.

Leases run on a clock of their own, which stands still while the machine sleeps, as the deadlines of a worker do: if
it did not, a worker would wake up and find the task that it is at with somebody else.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import attrs

from . import statements

if TYPE_CHECKING:
    import sqlite3

__all__ = ["MICRO", "Moment", "StoreClock", "micro"]

MICRO: Final = 1_000_000
_LONGEST: Final = 2**50
"""Microseconds, some 35 years: longer times are as good as this one, and sums stay exact."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def micro(seconds: float) -> int:
    """Seconds as microseconds."""
    return min(_LONGEST, round(min(seconds, _LONGEST) * MICRO))


@final
@attrs.frozen
class Moment:
    """One moment, in microseconds.

    Attributes:
        time: of the store.
        lease: of leases.
        wall: of day.
    """

    time: int
    lease: int
    wall: int


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"  # not Linux; a boot is then seen by the clock having started again


def _since_boot() -> int:
    """Microseconds since boot, those included in which the machine slept, where the platform can tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return _awake()


def _awake() -> int:
    return time.monotonic_ns() // 1000


@final
class StoreClock:
    """Tells the store's time to one connection."""

    def __init__(self) -> None:
        self._time_offset = 0
        self._lease_offset = 0

    def set(self, connection: sqlite3.Connection) -> None:
        """Go on from what the file says; to be called within a transaction that writes."""
        boot, time_offset, lease_offset, last_time, last_wall = connection.execute(statements.READ_CLOCK).fetchone()
        since_boot, awake, wall = _since_boot(), _awake(), time.time_ns() // 1000
        if boot != _boot_id() or since_boot + time_offset < last_time:
            now = last_time + max(0, wall - last_wall)
            time_offset, lease_offset = now - since_boot, now - awake
            new = statements.bind(_boot_id(), time_offset, lease_offset, now, wall)
            connection.execute(statements.SET_CLOCK, new)
        self._time_offset, self._lease_offset = time_offset, lease_offset

    def now(self) -> Moment:
        """This moment."""
        return Moment(_since_boot() + self._time_offset, _awake() + self._lease_offset, time.time_ns() // 1000)
