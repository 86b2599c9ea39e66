"""How many deliveries a worker holds beyond those that run."""

from __future__ import annotations

import math
from typing import Final, final

import trio

__all__ = ["Prefetch"]

_WINDOW: Final = 0.1
_STALLED_AFTER: Final = 1.0


@final
class Prefetch:
    """A stated number, or by default as many as the worker has started in the last tenth of a second.

    So a worker of short tasks need not wait for the store between them, one of long tasks takes nothing that another
    could start at once, and what is held starts within about a tenth of a second. Should it not, since the tasks before
    it turn out to be long, it is to be given back.

    Args:
        concurrency: handlers that may run at once; the most that is held by default.
        stated: a fixed number; None for the default.
    """

    def __init__(self, concurrency: int, stated: int | None) -> None:
        self._concurrency = concurrency
        self._stated = stated
        self._since = -math.inf
        self._count = 0
        self._before = 0
        self._last_start = -math.inf

    def started(self) -> None:
        """A run was started."""
        self._count += 1

    @property
    def patience(self) -> float:
        """Seconds after which to look whether things have stalled."""
        return math.inf if self._stated is not None else _STALLED_AFTER

    def allowed(self) -> int:
        """How many to hold now beyond those that run."""
        if self._stated is not None:
            return self._stated
        now = trio.current_time()
        passed = now - self._since
        if passed >= _WINDOW:
            if self._count:
                self._last_start = now
            self._before = self._count if passed < 2 * _WINDOW else 0
            self._count = 0
            self._since = now
        return min(self._concurrency, max(self._before, self._count))

    def stalled(self) -> bool:
        """Whether nothing has been started for so long that what is held should be given back."""
        if self._stated is not None:
            return False
        self.allowed()
        return self._count == 0 and trio.current_time() - self._last_start >= _STALLED_AFTER
