"""A result backend in the memory of one process."""

from __future__ import annotations

from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import msgspec
import trio

from ..._validate import integer
from ...abc import ResultBackend
from ...errors import StoreClosedError
from ...status import TaskStatus
from ._base import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from ...abc import StatusWatch
    from ...status import WorkerHeartbeat

__all__ = ["InMemoryResultBackend"]


@final
class _Record(msgspec.Struct, eq=False, gc=False):
    """The status of one task; `kept` turns False when it is forgotten, for what still refers to it."""

    status: TaskStatus
    expires: float
    finished: bool
    kept: bool = True


@final
class InMemoryResultBackend(MemoryStore, ResultBackend):
    """Holds statuses and heartbeats in memory.

    Any number of producers and workers share one instance within one trio run. It is opened by one ``async with`` block
    at a time; the content is kept when the block is left. Every operation is one checkpoint followed by one step: a
    cancelled call has done nothing at all. Retention is counted by `trio.current_time` from the call on, so a fake
    clock drives it.

    Args:
        max_finished: how many finished tasks are remembered, however long they ask to be; those that finished first
            make room. Unfinished ones are bounded by their retention alone. Default 10,000.

    Raises:
        InvalidOptionError: an option is out of its range.
    """

    def __init__(self, *, max_finished: int = 10_000) -> None:
        super().__init__()
        self._max_finished = integer("max_finished", max_finished, minimum=1)
        self._records: dict[str, _Record] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()  # in the order in which they finished
        self._ring: deque[_Record] = deque()  # every record once; see `_sweep`
        self._watches: dict[str, dict[_Watch, None]] = {}
        self._heartbeats: dict[str, tuple[float, WorkerHeartbeat]] = {}

    # --- statuses -----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def record(self, statuses: Sequence[TaskStatus]) -> list[bool]:
        """See `ResultBackend.record`.

        Cancellation: nothing is written.
        """
        await self._enter_operation()
        now = trio.current_time()
        self._sweep(now, 2 * len(statuses))
        results = []
        for status in statuses:
            written = self._write(status, now)
            if written and status.id in self._watches:
                for watch in self._watches[status.id]:
                    watch.push(status)
            results.append(written)
        return results

    def _write(self, status: TaskStatus, now: float) -> bool:
        task_id = status.id
        record = self._records.get(task_id)
        if record is not None and record.expires <= now:
            self._drop(task_id, record)
            record = None
        finished = status.state.terminal
        if record is None:
            record = self._records[task_id] = _Record(status, now + status.ttl, finished)
            self._ring.append(record)
        elif status.version < record.status.version:
            return False
        else:
            if record.finished:
                del self._finished[task_id]
            record.status = status
            record.expires = now + status.ttl
            record.finished = finished
        if finished:
            self._finished[task_id] = None
            if len(self._finished) > self._max_finished:
                oldest = next(iter(self._finished))
                self._drop(oldest, self._records[oldest])
        return True

    def _drop(self, task_id: str, record: _Record) -> None:
        del self._records[task_id]
        record.kept = False
        if record.finished:
            del self._finished[task_id]

    def _sweep(self, now: float, steps: int) -> None:
        """Look at the next few records of the ring, and forget those whose retention has ended.

        Two looks for each status written go once round all of them by the time half as many have come in, so records
        nobody asks for again do not pile up, and no call has to look at more than a few.
        """
        ring = self._ring
        for _ in range(min(steps, len(ring))):
            record = ring.popleft()
            if not record.kept:
                continue
            if record.expires <= now:
                self._drop(record.status.id, record)
            else:
                ring.append(record)

    @trio.lowlevel.enable_ki_protection
    async def get(self, task_id: str) -> TaskStatus | None:
        """See `ResultBackend.get`."""
        await self._enter_operation()
        record = self._records.get(task_id)
        if record is None or record.expires <= trio.current_time():
            return None
        return record.status

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def watch(self, task_id: str) -> AsyncGenerator[StatusWatch, None]:
        """See `ResultBackend.watch`. A terminal status is skipped for a newer terminal one only."""
        await self._enter_operation()
        watch = _Watch()
        watches = self._watches.setdefault(task_id, {})
        watches[watch] = None
        try:
            yield watch
        finally:
            watch.close()
            watches.pop(watch, None)  # gone already where the store was closed meanwhile
            if not watches and self._watches.get(task_id) is watches:
                del self._watches[task_id]

    # --- heartbeats ---------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def put_heartbeat(self, heartbeat: WorkerHeartbeat, *, ttl: float) -> None:
        """See `ResultBackend.put_heartbeat`.

        Cancellation: nothing is written.
        """
        await self._enter_operation()
        now = trio.current_time()
        if heartbeat.worker not in self._heartbeats:
            # Each new worker pays for clearing away those that ended without a word.
            self._heartbeats = {worker: kept for worker, kept in self._heartbeats.items() if kept[0] > now}
        self._heartbeats[heartbeat.worker] = (now + ttl, heartbeat)

    @trio.lowlevel.enable_ki_protection
    async def remove_heartbeat(self, worker: str) -> None:
        """See `ResultBackend.remove_heartbeat`.

        Cancellation: nothing is removed.
        """
        await self._enter_operation()
        self._heartbeats.pop(worker, None)

    @trio.lowlevel.enable_ki_protection
    async def list_heartbeats(self) -> list[WorkerHeartbeat]:
        """See `ResultBackend.list_heartbeats`."""
        await self._enter_operation()
        now = trio.current_time()
        return [heartbeat for _, (expires, heartbeat) in sorted(self._heartbeats.items()) if expires > now]

    # --- opening and closing ------------------------------------------------------------------------------------------

    def _rebase(self, shift: float) -> None:
        for record in self._records.values():
            record.expires += shift
        self._heartbeats = {
            worker: (expires + shift, heartbeat) for worker, (expires, heartbeat) in self._heartbeats.items()
        }

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.close()
        self._watches.clear()


@final
class _Watch:
    """What one watcher has not seen yet: at most one terminal status, and one other that is newer."""

    def __init__(self) -> None:
        self._terminal: TaskStatus | None = None
        self._latest: TaskStatus | None = None
        self._open = True
        self._changed = trio.lowlevel.ParkingLot()

    def push(self, status: TaskStatus) -> None:
        """Take note of a status."""
        if status.state.terminal:
            self._terminal, self._latest = status, None
        else:
            self._latest = status
        self._changed.unpark_all()

    def close(self) -> None:
        """Take no more note."""
        self._open = False
        self._changed.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def changed(self) -> TaskStatus:
        """See `StatusWatch.changed`.

        Raises:
            StoreClosedError: nothing is left to see, and the watch or the store has ended.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._terminal is not None:
                status, self._terminal = self._terminal, None
                return status
            if self._latest is not None:
                status, self._latest = self._latest, None
                return status
            if not self._open:
                raise StoreClosedError("the watch has ended")
            await self._changed.park()
