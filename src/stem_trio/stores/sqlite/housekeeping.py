"""What is cleared away with the transactions that come along anyway, a little at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from . import statements
from .clock import MICRO

if TYPE_CHECKING:
    import sqlite3

    from .transaction import Transaction

__all__ = ["Housekeeper"]

_EVERY: Final = 1 * MICRO
_SPACE_EVERY: Final = 30 * MICRO
_BATCH: Final = 500
_PAGES: Final = 512
"""Pages that are given back at a time."""
_SPARE_PAGES: Final = 2048
"""Free pages that are kept for what comes next, and more than this if more are in use."""


@final
class Housekeeper:
    """Clears away what has expired, and gives the file's free space back when most of it is."""

    def __init__(self) -> None:
        self._next = 0
        self._next_space = 0
        self._too_large = False

    def tidy(self, work: Transaction) -> None:
        """Do so, if it is time; in a transaction that writes."""
        now = work.now.time
        if now < self._next:
            return
        # Looks at what has expired only, by an index; a rest is left for the next transaction.
        gone = work.run(statements.FORGET_STATUSES, now, _BATCH)
        if gone < _BATCH:
            self._next = now + _EVERY
        work.run(statements.FORGET_HEARTBEATS, now)
        work.touch()
        if now >= self._next_space:
            self._next_space = now + _SPACE_EVERY
            pages, free = work.row(statements.READ_SPACE)
            if free > max(_SPARE_PAGES, pages // 2):
                self._next_space = now + _EVERY
                self._too_large = True

    def give_space_back(self, connection: sqlite3.Connection) -> None:
        """Shorten the file by some pages, if it should be; outside of a transaction."""
        if self._too_large:
            self._too_large = False
            # As a script, which goes on to its end: this statement returns an empty row for each page.
            connection.executescript(statements.GIVE_SPACE_BACK.format(_PAGES))
