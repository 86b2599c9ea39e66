"""The result backend on SQLite."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, final

import msgspec
import trio

from ...abc import ResultBackend
from ...errors import StoreClosedError
from ...status import TaskStatus, WorkerHeartbeat
from . import statements
from .clock import micro
from .records import record, status_rows
from .store import DEFAULT_BUSY_TIMEOUT, SqliteStore
from .transaction import STATUSES, key

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from ...abc import StatusWatch
    from ...clock import WallClock
    from .engine import Engine
    from .transaction import Change, Transaction

__all__ = ["SqliteResultBackend"]

_CHUNK: Final = 500
_decode_heartbeat: Final = msgspec.json.Decoder(WorkerHeartbeat).decode
_encode_heartbeat: Final = msgspec.json.Encoder().encode


@final
class SqliteResultBackend(SqliteStore, ResultBackend):
    """A result backend in one file, which any number of processes of one machine may use. Made by `open`.

    On the file of a `SqliteBroker` it shares that one's thread and connection, and needs the same options.

    Args:
        address: as for `SqliteBroker`.
        synchronous: as for `SqliteBroker`.
        busy_timeout: as for `SqliteBroker`.
        clock: as for `SqliteBroker`.

    Raises:
        ConfigurationError: the address names no file.
        InvalidOptionError: an option is out of its range.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        *,
        synchronous: str = "FULL",
        busy_timeout: float | timedelta = DEFAULT_BUSY_TIMEOUT,
        clock: WallClock | None = None,
    ) -> None:
        super().__init__(address, synchronous=synchronous, busy_timeout=busy_timeout, clock=clock)
        self._watches: dict[str, dict[_Watch, None]] = {}

    def _changed(self, change: Change) -> None:
        if change.foreign:
            for watches in self._watches.values():
                for watch in watches:
                    watch.look_again()
        if self._watches:
            for serial, status in change.statuses:
                for watch in self._watches.get(status.id, ()):
                    watch.offer(serial, status)

    def _close(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.close()

    # --- statuses -------------------------------------------------------------------------------------------------

    async def record(self, statuses: Sequence[TaskStatus]) -> list[bool]:
        """See `ResultBackend.record`. In steps of 500 statuses."""
        engine = self._engine
        result: list[bool] = []
        for first in range(0, len(statuses), _CHUNK):
            chunk = statuses[first : first + _CHUNK]
            result += await engine.call(partial(record, statuses=chunk, rows=status_rows(chunk)))
        if not statuses:
            await trio.lowlevel.checkpoint()
        return result

    async def get(self, task_id: str) -> TaskStatus | None:
        """See `ResultBackend.get`."""
        body = await self._engine.call(partial(_get, name=key(task_id)), writes=False)
        return None if body is None else TaskStatus.decode(body.encode())

    def watch(self, task_id: str) -> AbstractAsyncContextManager[StatusWatch]:
        """See `ResultBackend.watch`."""
        return self._watch(task_id)

    @asynccontextmanager
    async def _watch(self, task_id: str) -> AsyncGenerator[StatusWatch, None]:
        watch = _Watch(self._engine, task_id)
        watches = self._watches.setdefault(task_id, {})
        watches[watch] = None
        try:
            await watch.begin()
            yield watch
        finally:
            watch.close()
            del watches[watch]
            if not watches and self._watches.get(task_id) is watches:
                del self._watches[task_id]

    # --- heartbeats -----------------------------------------------------------------------------------------------

    async def put_heartbeat(self, heartbeat: WorkerHeartbeat, *, ttl: float) -> None:
        """See `ResultBackend.put_heartbeat`."""
        body = _encode_heartbeat(heartbeat).decode()
        await self._engine.call(
            lambda work: work.run(
                statements.PUT_HEARTBEAT, key(heartbeat.worker), work.now.time + max(1, micro(ttl)), body
            )
        )

    async def remove_heartbeat(self, worker: str) -> None:
        """See `ResultBackend.remove_heartbeat`."""
        await self._engine.call(lambda work: work.run(statements.REMOVE_HEARTBEAT, key(worker)))

    async def list_heartbeats(self) -> list[WorkerHeartbeat]:
        """See `ResultBackend.list_heartbeats`."""
        rows = await self._engine.call(_list_heartbeats, writes=False)
        return sorted((_decode_heartbeat(body) for (body,) in rows), key=lambda heartbeat: heartbeat.worker)


def _get(work: Transaction, name: str) -> str | None:
    row = work.row(statements.GET_STATUS, name, work.now.time)
    return None if row is None else str(row[0])


def _list_heartbeats(work: Transaction) -> list[tuple[str]]:
    return work.execute(statements.LIST_HEARTBEATS, statements.bind(work.now.time)).fetchall()


@final
class _Watch:
    """The changes of one status: those of this process are offered, those of others it reads."""

    def __init__(self, engine: Engine, task_id: str) -> None:
        self._engine: Engine | None = engine
        self._name = key(task_id)
        self._serial: int | None = None  # of what was seen last; None before the watch is in force
        self._unseen: TaskStatus | None = None
        self._may_have_changed = False
        self._lot = trio.lowlevel.ParkingLot()

    async def begin(self) -> None:
        """Have it in force: what is recorded from now on is seen."""
        assert self._engine is not None, "just made"
        self._engine.want(STATUSES)
        await self._engine.call(lambda work: work.sequence, writes=False, then=self._begin_at)

    def _begin_at(self, serial: int) -> None:
        self._serial = serial

    def offer(self, serial: int, status: TaskStatus) -> None:
        """A status was recorded."""
        if self._serial is not None and serial > self._serial:
            self._serial = serial
            self._unseen = status
            self._lot.unpark_all()

    def look_again(self) -> None:
        """Another process may have recorded one."""
        self._may_have_changed = True
        self._lot.unpark_all()

    def close(self) -> None:
        """Nothing more is seen, except for what was offered before."""
        self._engine = None
        self._lot.unpark_all()

    def _read(self, work: Transaction) -> tuple[int, TaskStatus] | None:
        row = work.row(statements.GET_CHANGE, self._name, work.now.time, self._serial)
        return None if row is None else (row[0], TaskStatus.decode(row[1].encode()))

    def _take(self, found: tuple[int, TaskStatus] | None) -> None:
        if found is not None:
            self.offer(*found)

    async def changed(self) -> TaskStatus:
        """See `StatusWatch.changed`.

        Raises:
            StoreClosedError: nothing is left to see, and the watch or the store has ended.
            StoreError: the file cannot be read; no status is lost by it.
        """
        # The checkpoint comes first: after a status is taken, nothing may be cancelled.
        await trio.lowlevel.checkpoint()
        while self._unseen is None:
            if self._engine is None:
                raise StoreClosedError("the watch has ended")
            if not self._may_have_changed:
                await self._lot.park()
                continue
            self._may_have_changed = False
            try:
                await self._engine.call(self._read, writes=False, then=self._take)
            except BaseException:
                self._may_have_changed = True  # the next call reads again
                raise
        status, self._unseen = self._unseen, None
        return status
