"""The one thread that talks to a file, and the way of trio tasks to it.

The thread takes all jobs that wait, and has them done in one transaction: a hundred tasks that settle at the same time
wait for one write to the disk. What a commit has changed is then told: within the process to whoever listens, to other
processes by their doorbells.
"""

from __future__ import annotations

import logging
import math
import os
import select
import sqlite3
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import attrs
import trio

from ...errors import StoreClosedError, StoreError
from . import statements
from .clock import MICRO, Moment, StoreClock
from .doorbell import Doorbell
from .errors import is_busy, translate
from .job import Job
from .schema import connect
from .transaction import Change, pack
from .transactor import Transactor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...clock import WallClock
    from .transaction import Transaction

__all__ = ["Engine", "Settings"]

T = TypeVar("T")

_logger: Final = logging.getLogger(__name__)

_TOGETHER: Final = 256
"""Jobs in one transaction at most: others, in other processes too, wait meanwhile."""
_LOOK: Final = 1.0
"""Seconds after which a process that waits asks whether the file has changed, in case that a ring was lost."""
_LOOK_OFTEN: Final = 0.02
"""The same where there is no doorbell."""
_GRACE: Final = 5.0
"""Seconds that closing takes at most, before what is still under way is broken off; and as many after that."""
_LAST_LOCK: Final = 100
"""Milliseconds that closing waits for others' locks, to leave no doorbell behind."""


@final
@attrs.frozen(kw_only=True)
class Settings:
    """How a file is used.

    Attributes:
        path: the file.
        synchronous: when SQLite waits for the disk.
        busy_timeout: seconds to wait for others' locks.
        clock: tells all times, in tests; None for the machine's clocks.
    """

    path: Path
    synchronous: str
    busy_timeout: float
    clock: WallClock | None = None


@final
class Engine:
    """The thread of one file, for one trio run.

    Args:
        settings: which file, and how.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings: Final = settings
        self._path = settings.path
        self._pid = os.getpid()
        self._token = trio.lowlevel.current_trio_token()
        self._listeners: dict[Callable[[Change], None], None] = {}
        self._interest = 0
        self._told_of = 0  # of these interests other processes know
        self._opened = trio.Event()
        self._ended = trio.Event()
        self._error: Exception | None = None  # of opening, or what has ended the thread
        self._inbox: deque[Job[Any]] = deque()
        self._in_hand: list[Job[Any]] = []
        self._signalled = False
        self._closing = False
        self._ear, self._mouth = os.pipe()
        self._connection: sqlite3.Connection | None = None
        self._clock = StoreClock()
        self._bell = Doorbell(settings.path)
        self._transactor: Transactor | None = None
        self._version: int | None = None  # of the file's content, when last looked at
        self._thread = threading.Thread(target=self._main, name=f"stem-sqlite {settings.path.name}", daemon=True)

    @property
    def commits(self) -> int:
        """How many transactions it has committed."""
        return 0 if self._transactor is None else self._transactor.commits

    # --- the trio side ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the thread, and open the file.

        Cancellation: the thread has ended.

        Raises:
            ConfigurationError: the file cannot be used.
            StoreError: it cannot be used just now, or is damaged.
        """
        self._thread.start()
        try:
            await self._wait(self._opened)
        finally:
            if self._error is not None or not self._opened.is_set():
                await self.close()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Do what waits, and end the thread. Takes some seconds at most, whatever else happens."""
        self._closing = True
        give_up_at = time.monotonic() + _GRACE
        if self._transactor is not None:
            self._transactor.give_up_at = give_up_at
        self._signal()
        with trio.CancelScope(shield=True):
            await self._wait(self._ended, give_up_at)
            connection = self._connection
            if not self._ended.is_set() and connection is not None:
                with suppress(sqlite3.ProgrammingError):  # closed this very moment
                    connection.interrupt()
                await self._wait(self._ended, give_up_at + _GRACE)
        if not self._ended.is_set():
            _logger.warning("%s: a call into SQLite does not end; its thread is left behind", self._path)
            return
        self._thread.join()
        os.close(self._ear)
        os.close(self._mouth)

    async def _wait(self, event: trio.Event, until: float = math.inf) -> None:
        """Wait for the thread to set an event, or for a moment by `time.monotonic`."""
        while not event.is_set() and (left := until - time.monotonic()) > 0:
            if self.settings.clock is None:
                with trio.move_on_after(left):
                    await event.wait()
            else:
                await trio.lowlevel.checkpoint()  # see `_spin`

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call a function, in the trio thread, with each change that others may wait for."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[Change], None]) -> None:
        """Stop calling it."""
        self._listeners.pop(listener, None)

    def want(self, kinds: int) -> None:
        """Have other processes ring for changes of these kinds, from the jobs on that are submitted after this call."""
        self._interest |= kinds
        if self._told_of | kinds != self._told_of:
            # Until it has worked once; failing, it is not known to others, and looks at the file now and then.
            self._put(Job(self._hang_bell, writes=True, moment=self._moment(), then=self._bell_hangs))

    async def call(
        self,
        work: Callable[[Transaction], T],
        *,
        writes: bool = True,
        then: Callable[[T], None] | None = None,
        on_abandoned: Callable[[T], None] | None = None,
    ) -> T:
        """Have a job done, and return its result.

        Args:
            work: see `Job`.
            writes: see `Job`.
            then: see `Job`.
            on_abandoned: see `Job`.

        Cancellation: it is done whole or not at all; not at all unless it had begun.

        Raises:
            StoreUnavailableError: the file cannot be written just now.
            StoreError: the file is damaged, or SQLite refuses the job.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = Job(work, writes=writes, moment=self._moment(), then=then, on_abandoned=on_abandoned)
        self._put(job)
        if self.settings.clock is None:
            await self._park(job)
        else:
            await self._spin(job)
        if job.error is not None:
            raise job.error
        return job.result[0]

    def submit(self, work: Callable[[Transaction], object]) -> None:
        """Have a job done of which nobody waits for the result."""
        self._put(Job(work, writes=True, moment=self._moment()))

    async def _park(self, job: Job[T]) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            job.abandon()
            return trio.lowlevel.Abort.SUCCEEDED

        job.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _spin(self, job: Job[T]) -> None:
        """Wait without resting, so that a fake clock, which jumps when all tasks rest, does not do so meanwhile."""
        while not job.delivered:
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
            except trio.Cancelled:
                job.abandon()
                raise
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _moment(self) -> Moment | None:
        clock = self.settings.clock
        if clock is None:
            return None
        now = round(clock.now() * MICRO)
        return Moment(now, now, now)

    def _put(self, job: Job[Any]) -> None:
        if os.getpid() != self._pid:
            raise StoreError(f"{self._path} was opened before this process was forked; open a store of its own")
        if self._ended.is_set():
            raise self._why_not()
        self._inbox.append(job)
        self._signal()

    def _signal(self) -> None:
        if not self._signalled and not self._ended.is_set():
            self._signalled = True
            os.write(self._mouth, b"!")

    def _deliver(self, jobs: list[Job[Any]], change: Change) -> None:
        for job in jobs:
            job.deliver()
        if change.kinds or change.foreign:
            for listener in list(self._listeners):
                listener(change)

    def _finish(self) -> None:
        self._opened.set()
        self._ended.set()
        for job in (*self._in_hand, *self._inbox):
            if not job.delivered:
                job.result.clear()
                job.error = self._why_not()
                job.deliver()
        self._inbox.clear()

    def _why_not(self) -> Exception:
        """Why a job is not done, once the thread has ended."""
        if self._error is None:
            return StoreClosedError(f"the store on {self._path} was closed")
        error = StoreError(f"the store on {self._path} has failed, close it: {self._error}")
        error.__cause__ = self._error
        return error

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            self._closing = True  # nobody is left to work for

    def _main(self) -> None:
        try:
            self._connection = self._open()
            self._transactor = Transactor(
                self._connection,
                self._path,
                busy_timeout=self.settings.busy_timeout,
                clock=self._clock,
                bell=self._bell,
            )
            self._tell(self._opened.set)
            self._serve(self._connection, self._transactor)
        except sqlite3.Error as error:
            self._error = translate(error, self._path)
            self._error.__cause__ = error
        except Exception as error:  # noqa: BLE001 - whoever opens the store, or waits for a job, gets it
            self._error = error
        finally:
            self._leave()
            self._tell(self._finish)

    def _open(self) -> sqlite3.Connection:
        deadline = time.monotonic() + self.settings.busy_timeout
        while True:
            try:
                return connect(self._path, synchronous=self.settings.synchronous, clock=self._clock)
            except sqlite3.Error as error:
                if not is_busy(error) or self._closing or time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # What cannot be done now is done by others: the row of a bell is removed by whoever finds that nobody hears
            # it, the log is carried over into the file by whoever opens that next.
            with suppress(sqlite3.Error):
                if self._bell.fileno is not None:
                    connection.execute(statements.SET_BUSY_TIMEOUT.format(_LAST_LOCK))
                    connection.execute(statements.TAKE_BELLS_DOWN, statements.bind(pack([self._bell.name])))
            with suppress(sqlite3.Error):
                connection.close()
        self._bell.take_down()

    def _serve(self, connection: sqlite3.Connection, transactor: Transactor) -> None:
        poller = select.poll()
        poller.register(self._ear, select.POLLIN)
        bell: int | None = None
        look_at = time.monotonic()
        while True:
            if jobs := self._take():
                self._in_hand = jobs
                change = transactor.carry_out(jobs)
                self._tell(self._deliver, jobs, change)
            elif self._closing:
                return
            if bell is None and self._bell.fileno is not None:
                bell = self._bell.fileno
                poller.register(bell, select.POLLIN)
            patience = max(0.0, look_at - time.monotonic()) * 1000 if self._interest else None
            ready = [fileno for fileno, _ in poller.poll(0 if self._inbox else patience)]
            if self._ear in ready:
                os.read(self._ear, 64)
                self._signalled = False
            if bell in ready:
                self._bell.drain()
            if self._interest and (bell in ready or time.monotonic() >= look_at):
                look_at = time.monotonic() + (_LOOK_OFTEN if bell is None else _LOOK)
                self._look(connection, transactor)

    def _take(self) -> list[Job[Any]]:
        jobs: list[Job[Any]] = []
        while self._inbox and len(jobs) < _TOGETHER:
            jobs.append(self._inbox.popleft())
        return jobs

    def _look(self, connection: sqlite3.Connection, transactor: Transactor) -> None:
        """Tell those who wait if another process has changed the file, or something is wrong with it."""
        try:
            (version,) = connection.execute(statements.DATA_VERSION).fetchone()
        except sqlite3.Error:
            version = None  # whoever looks again is told
        if version != self._version or version is None or not transactor.file_in_place():
            self._version = version
            self._tell(self._deliver, [], Change(foreign=True))

    def _hang_bell(self, work: Transaction) -> int:
        """Let other processes know what to ring for; what that is."""
        interest = self._interest
        if self._bell.fileno is not None or self._bell.hang():
            work.run(statements.HANG_BELL, self._bell.name, interest)
        return interest

    def _bell_hangs(self, interest: int) -> None:
        self._told_of |= interest
