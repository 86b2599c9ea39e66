"""Carries out jobs: all that are given to it in one transaction, each in a savepoint, with one commit."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from ...errors import StoreError
from . import statements
from .errors import is_busy, translate
from .housekeeping import Housekeeper
from .transaction import Change, Transaction, pack

if TYPE_CHECKING:
    from pathlib import Path

    from .clock import Moment, StoreClock
    from .doorbell import Doorbell
    from .job import Job

__all__ = ["Transactor"]

_SHORTEST: Final = 0.0002
_LONGEST: Final = 0.004
"""Seconds between two attempts to get the lock. Short, as transactions are, and never in step with another process."""
_CHECK_EVERY: Final = 1.0
"""Seconds after which the file is looked for again."""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@final
class Transactor:
    """Carries out jobs on one connection. Lives in the thread of the connection.

    Args:
        connection: to the file, open.
        path: the file.
        busy_timeout: seconds to wait for others' locks.
        clock: the store's.
        bell: of this connection.

    Attributes:
        commits: how many transactions were committed.
        give_up_at: by `time.monotonic`, when not to wait for locks any more, whatever `busy_timeout` says.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, *, busy_timeout: float, clock: StoreClock, bell: Doorbell
    ) -> None:
        self._connection = connection
        self._path = path
        self._busy_timeout = busy_timeout
        self._clock = clock
        self._bell = bell
        self._housekeeper = Housekeeper()
        self._silent: list[str] = []  # bells that nobody hears any more
        self._identity = _identity(path)
        self._in_place = True
        self._check_at = 0.0
        self.commits = 0
        self.give_up_at = float("inf")

    def carry_out(self, jobs: list[Job[Any]]) -> Change:
        """Do jobs, except for those that were withdrawn; leaves in each its result or its error.

        Returns:
            What others may wait for. Other processes have been told.
        """
        writes = any(job.writes for job in jobs)
        begun: list[Job[Any]] = []
        if not self.file_in_place():
            for job in jobs:
                if job.begin():
                    job.error = StoreError(f"{self._path} was moved or deleted while in use; open the store again")
            return Change()
        try:
            self._begin(writes=writes)
            begun = [job for job in jobs if job.begin()]
            change, bells = self._transact(begun, writes=writes)
        except sqlite3.Error as error:
            # Those that have not begun by now are told as well, as they would meet the same.
            begun += [job for job in jobs if job.begin()]
            self._roll_back()
            for job in begun:
                job.result.clear()
                job.error = self._explain(error, committing=True)
            return Change()
        if bells:
            self._silent += self._bell.ring(bells)
        if writes:
            with suppress(sqlite3.Error):  # later, then
                self._housekeeper.give_space_back(self._connection)
        return change

    def file_in_place(self) -> bool:
        """Whether the path still leads to the file. SQLite itself would go on with one that nobody else can find."""
        if (now := time.monotonic()) >= self._check_at:
            self._check_at = now + _CHECK_EVERY
            self._in_place = _identity(self._path) == self._identity
        return self._in_place

    def _begin(self, *, writes: bool) -> None:
        deadline = min(time.monotonic() + self._busy_timeout, self.give_up_at)
        while True:
            try:
                if writes:
                    self._connection.execute(statements.BEGIN_WRITING)
                else:
                    self._connection.execute(statements.BEGIN_READING)
                    self._connection.execute(statements.READ_SEQUENCE).fetchone()  # only now it has a view of the file
                return
            except sqlite3.Error as error:
                self._roll_back()
                left = min(deadline, self.give_up_at) - time.monotonic()
                if left <= 0 or not is_busy(error):
                    raise
                time.sleep(min(left, random.uniform(_SHORTEST, _LONGEST)))

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute(statements.ROLLBACK)

    def _transact(self, jobs: list[Job[Any]], *, writes: bool) -> tuple[Change, list[str]]:
        """Do jobs in the transaction that was begun, and commit it."""
        while True:
            work = Transaction(self._connection, self._now(jobs))
            change = Change()
            for job in jobs:
                if job.error is None:
                    self._do(work, job, change, alone=len(jobs) == 1)
                    if not self._connection.in_transaction:
                        break
            else:
                bells: list[str] = []
                if writes:
                    self._housekeeper.tidy(work)
                    work.finish()
                    bells = self._find_bells(work, change)
                self._connection.execute(statements.COMMIT)
                self.commits += 1
                return change, bells
            if all(job.error is not None for job in jobs):
                return Change(), []
            # A full disk, say, has ended the transaction as a whole: the others once more, without that one.
            self._begin(writes=writes)

    def _do(self, work: Transaction, job: Job[Any], change: Change, *, alone: bool) -> None:
        job.result.clear()
        work.change = Change()
        if not alone:
            self._connection.execute(statements.SAVEPOINT)
        try:
            job.result.append(job.work(work))
        except Exception as error:  # noqa: BLE001 - who waits for the job gets it
            job.result.clear()
            job.error = self._explain(error)
            if alone:
                self._roll_back()
            elif self._connection.in_transaction:
                self._connection.execute(statements.ROLLBACK_TO)
                self._connection.execute(statements.RELEASE)
            work.undone()
        else:
            if not alone:
                self._connection.execute(statements.RELEASE)
            change.add(work.change)

    def _now(self, jobs: list[Job[Any]]) -> Moment:
        told = [job.moment for job in jobs if job.moment is not None]
        return max(told, key=lambda moment: moment.time) if told else self._clock.now()

    def _explain(self, error: Exception, *, committing: bool = False) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        told = translate(error, self._path, committing=committing)
        told.__cause__ = error
        return told

    def _find_bells(self, work: Transaction, change: Change) -> list[str]:
        if self._silent:
            work.run(statements.TAKE_BELLS_DOWN, pack(self._silent))
            self._silent = []
        if not change.kinds:
            return []
        return [name for (name,) in work.execute(statements.FIND_BELLS, statements.bind(change.kinds, self._bell.name))]
