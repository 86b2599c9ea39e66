"""What a job works with: one transaction, its moment, and what it changes that others wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import attrs
import msgspec

from . import statements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from ...status import TaskStatus
    from .clock import Moment

__all__ = ["MESSAGES", "STATUSES", "TASKS", "Change", "Transaction", "key", "pack", "unkey", "unpack"]

# Kinds of change, as bits: what a process lets itself be woken for.
TASKS: Final = 1
STATUSES: Final = 2
MESSAGES: Final = 4

_encode: Final = msgspec.json.Encoder().encode
unpack: Final = msgspec.json.Decoder().decode


def pack(value: Iterable[Any]) -> str:
    """A batch as one parameter."""
    return _encode(value).decode()


def key(name: str) -> str:
    """A name as it stands in the tables: SQLite's JSON functions end text at a null character."""
    if "\0" in name or "\x1b" in name:
        return name.replace("\x1b", "\x1b1").replace("\0", "\x1b0")
    return name


def unkey(name: str) -> str:
    """A name from how it stands in the tables."""
    return name.replace("\x1b0", "\0").replace("\x1b1", "\x1b") if "\x1b" in name else name


@final
@attrs.define
class Change:
    """What others may wait for.

    Attributes:
        queues: in which tasks have become ready, or are due sooner than those who wait may know.
        statuses: those written, with their serials.
        messages: whether something was broadcast.
        foreign: whether another process has changed anything, or may have.
    """

    queues: set[str] = attrs.field(factory=set)
    statuses: list[tuple[int, TaskStatus]] = attrs.field(factory=list)
    messages: bool = False
    foreign: bool = False

    @property
    def kinds(self) -> int:
        """What of, in bits."""
        return (TASKS if self.queues else 0) | (STATUSES if self.statuses else 0) | (MESSAGES if self.messages else 0)

    def add(self, other: Change) -> None:
        """Take over another one's."""
        self.queues |= other.queues
        self.statuses += other.statuses
        self.messages |= other.messages


@final
class Transaction:
    """One transaction, in which many jobs may have their turn.

    Attributes:
        now: the moment that counts for all of them.
        change: what the job at hand changes.
        advanced: queues in which, at this moment, nothing is due any more.
    """

    def __init__(self, connection: sqlite3.Connection, now: Moment) -> None:
        self.execute: Final = connection.execute
        self.now: Final = now
        self.change = Change()
        self.advanced: set[str] = set()
        self._sequence: int | None = None
        self._taken = False

    @property
    def sequence(self) -> int:
        """The last number taken."""
        if self._sequence is None:
            self._sequence = int(self.value(statements.READ_SEQUENCE))
        return self._sequence

    def take(self, count: int) -> int:
        """The first of so many numbers, greater than all before, in this file for ever."""
        first = self.sequence + 1
        self._sequence = first + count - 1
        self._taken = True
        return first

    def touch(self) -> None:
        """Have the moment written down, though no number was taken."""
        self.take(0)

    def value(self, statement: str, *parameters: Any) -> Any:
        """What a statement returns that has one row of one column."""
        return self.execute(statement, statements.bind(*parameters)).fetchone()[0]

    def row(self, statement: str, *parameters: Any) -> Any:
        """What a statement returns that has one row."""
        return self.execute(statement, statements.bind(*parameters)).fetchone()

    def run(self, statement: str, *parameters: Any) -> int:
        """Carry out a statement; how many rows it has changed."""
        return self.execute(statement, statements.bind(*parameters)).rowcount

    def undone(self) -> None:
        """The job at hand has failed, and what it did was rolled back."""
        self.advanced.clear()  # it may have been this job that moved what was due
        self.change = Change()

    def finish(self) -> None:
        """Write down what the transaction has used up. To be called before it is committed, if it writes."""
        if self._taken:
            self.run(statements.SET_STATE, self._sequence, self.now.time, self.now.wall)
