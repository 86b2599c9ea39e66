"""The broker on SQLite: every move is one transaction, or part of one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ..._validate import duration, integer
from ...abc import Broker
from ...envelope import DeadLetter, Delivery, Envelope, Lease, QueueStats, WaitingTask
from ...outcome import Complete, MoveToDead, Release, Retry
from . import moves, records
from .channel import SqliteSubscription, send
from .clock import MICRO, micro
from .joint import join
from .store import DEFAULT_BUSY_TIMEOUT, SqliteStore
from .transaction import TASKS, key, pack, unkey, unpack
from .waiting import Waiters

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from ...abc import JointStore, ResultBackend, Subscription
    from ...clock import WallClock
    from ...outcome import Settlement
    from ...status import TaskStatus
    from .moves import Letters, Row
    from .transaction import Change, Transaction

__all__ = ["SqliteBroker"]

_CHUNK: Final = 500
"""Tasks that one job handles at most."""
_CHUNK_BYTES: Final = 16 * 1024 * 1024
_LONGEST_WAIT: Final = 60.0
"""Seconds after which a claim looks again by itself: the machine may have slept, which deadlines do not notice."""
_SETTLEMENTS: Final = (Complete, Retry, MoveToDead, Release)

_Claimed = tuple[list["Row"], list[str], int, int, float]
"""Rows, envelopes and first token of what was taken, time of day in microseconds, and seconds to the next change."""


@final
class SqliteBroker(SqliteStore, Broker):
    """A broker in one file, which any number of processes of one machine may use. Made by `open`.

    Beyond the contract: a task that comes back, by release or by the end of its lease, is handed out before those of
    its priority that were published after it. The same id in two queues is two tasks.

    Args:
        address: ``sqlite:///relative.db``, ``sqlite:////absolute/file.db``, or a path.
        synchronous: when SQLite waits for the disk: ``"FULL"``, at each commit, so that what was confirmed outlives a
            power failure too; ``"NORMAL"``, so that the last commits may be lost by a power failure or a crash of the
            system, and nothing by one of processes; ``"EXTRA"`` and ``"OFF"`` as SQLite documents them.
        busy_timeout: seconds (or timedelta) to wait for locks of other programs.
        dead_letter_retention: seconds (or timedelta) for which dead letters are kept.
        max_dead_letters: how many are kept for each queue; the oldest go first. Each process counts again after a
            tenth of them, so there may be some more in between.
        clock: tells all times, in tests under a fake clock. Default: the machine's clocks.

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
        dead_letter_retention: float | timedelta = 7 * 86_400.0,
        max_dead_letters: int = 10_000,
        clock: WallClock | None = None,
    ) -> None:
        super().__init__(address, synchronous=synchronous, busy_timeout=busy_timeout, clock=clock)
        self._keep = moves.Keep(
            duration("dead_letter_retention", dead_letter_retention, positive=True),
            integer("max_dead_letters", max_dead_letters, minimum=1),
        )
        self._turns = moves.Turns()
        self._waiters = Waiters()
        self._subscriptions: dict[SqliteSubscription, None] = {}

    def _changed(self, change: Change) -> None:
        if change.foreign:
            self._waiters.notify_all()
        else:
            self._waiters.notify(change.queues)
        if change.foreign or change.messages:
            for subscription in self._subscriptions:
                subscription.changed()

    def _close(self) -> None:
        self._waiters.wake_all()
        for subscription in self._subscriptions:
            subscription.close()

    # --- publishing -----------------------------------------------------------------------------------------------

    async def publish(self, envelopes: Sequence[Envelope], *, delay: float = 0.0) -> list[bool]:
        """See `Broker.publish`. In steps of 500 tasks, or 16 MiB."""
        engine = self._engine
        result: list[bool] = []
        for rows, queues in _rows(envelopes):
            work = partial(
                moves.publish, keep=self._keep, rows=pack(rows), count=len(rows), queues=queues, delay=micro(delay)
            )
            result += await engine.call(work)
        if not envelopes:
            await trio.lowlevel.checkpoint()
        return result

    def join(self, backend: ResultBackend) -> JointStore | None:
        """See `Broker.join`. A backend on the same file, with the same options, can be joined."""
        return join(self, backend)

    async def publish_with(self, entries: Sequence[tuple[Envelope, TaskStatus]], delay: float) -> list[bool]:
        """See `JointStore.publish`."""
        engine = self._engine
        result: list[bool] = []
        for tasks, queues in _rows([envelope for envelope, _ in entries]):
            statuses = [status for _, status in entries[len(result) : len(result) + len(tasks)]]
            work = partial(
                records.publish_with,
                keep=self._keep,
                tasks=tasks,
                queues=queues,
                delay=micro(delay),
                statuses=statuses,
                rows=records.status_rows(statuses),
            )
            result += await engine.call(work)
        if not entries:
            await trio.lowlevel.checkpoint()
        return result

    async def settle_with(self, endings: Sequence[tuple[Lease, Settlement, TaskStatus]]) -> list[bool]:
        """See `JointStore.settle`."""
        engine = self._engine
        settlements = _checked([(lease, settlement) for lease, settlement, _ in endings])
        result: list[bool] = []
        for first in range(0, len(endings), _CHUNK):
            statuses = [status for _, _, status in endings[first : first + _CHUNK]]
            work = partial(
                records.settle_with,
                keep=self._keep,
                settlements=settlements[first : first + _CHUNK],
                statuses=statuses,
                rows=records.status_rows(statuses),
            )
            result += await engine.call(work)
        if not endings:
            await trio.lowlevel.checkpoint()
        return result

    # --- claiming -------------------------------------------------------------------------------------------------

    async def claim(
        self,
        queues: Sequence[str],
        *,
        consumer: str,  # noqa: ARG002 - the token alone tells who holds what
        limit: int,
        wait: float,
    ) -> list[Delivery]:
        """See `Broker.claim`. 100 tasks at most. What was taken for a claim that is cancelled is given back at once."""
        integer("limit", limit, minimum=1)
        names = list(dict.fromkeys(key(queue) for queue in queues))
        until = trio.current_time() + wait
        if wait <= 0:
            # Nobody need be woken to watch over the leases: whoever waits was told when there was something to take.
            return (await self._take(names, limit, waits=False))[0]
        self._engine.want(TASKS)
        waiter = self._waiters.join(names)
        try:
            while True:
                waiter.woken = False
                now = trio.current_time()
                deliveries, change_in = await self._take(names, limit, waits=now < until)
                if deliveries or now >= until:
                    return deliveries
                await waiter.wait(min(until, now + change_in, now + _LONGEST_WAIT))
        finally:
            self._waiters.leave(waiter)

    async def _take(self, names: list[str], limit: int, *, waits: bool) -> tuple[list[Delivery], float]:
        """What can be had now, and seconds until that may change by itself."""
        # Counted from before the request: the store counts from when it is done, which is later.
        asked_at = trio.current_time()
        work = partial(_claim, keep=self._keep, turns=self._turns, queues=names, limit=limit, waits=waits)
        give_back = partial(self._give_back, names)
        rows, envelopes, token, wall, change_in = await self._engine.call(work, on_abandoned=give_back)
        deliveries = [
            _delivery(row, envelope, token + position, wall, asked_at)
            for position, (row, envelope) in enumerate(zip(rows, envelopes, strict=True))
        ]
        return deliveries, change_in

    def _give_back(self, queues: list[str], claimed: _Claimed) -> None:
        """Release what was taken for a claim that was cancelled before it came."""
        rows, _, token, _, _ = claimed
        if rows and self._engine_in_use is not None:
            held = [(row[0], token + position) for position, row in enumerate(rows)]
            self._engine_in_use.submit(partial(moves.give_back, rows=held, queues=queues))

    # --- leases ---------------------------------------------------------------------------------------------------

    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Broker.renew`. In steps of 500 leases."""
        engine = self._engine
        result: list[bool] = []
        for first in range(0, len(leases), _CHUNK):
            work = partial(moves.renew, keep=self._keep, leases=leases[first : first + _CHUNK])
            result += await engine.call(work)
        if not leases:
            await trio.lowlevel.checkpoint()
        return result

    async def settle(self, settlements: Sequence[tuple[Lease, Settlement]]) -> list[bool]:
        """See `Broker.settle`. In steps of 500 settlements."""
        engine = self._engine
        _checked(settlements)
        result: list[bool] = []
        for first in range(0, len(settlements), _CHUNK):
            work = partial(moves.settle, keep=self._keep, settlements=settlements[first : first + _CHUNK])
            result += await engine.call(work)
        if not settlements:
            await trio.lowlevel.checkpoint()
        return result

    # --- operating ------------------------------------------------------------------------------------------------

    async def revoke(self, queue: str, task_ids: Sequence[str], *, reason: str = "") -> list[bool]:
        """See `Broker.revoke`."""
        work = partial(moves.revoke, keep=self._keep, queue=key(queue), task_ids=task_ids, reason=reason)
        return await self._engine.call(work)

    async def revocations(self, queue: str, task_ids: Sequence[str]) -> list[str | None]:
        """See `Broker.revocations`."""
        work = partial(moves.find_revoked, queue=key(queue), task_ids=task_ids)
        return await self._engine.call(work, writes=False)

    async def peek(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[WaitingTask]:
        """See `Broker.peek`."""
        work = partial(moves.peek, keep=self._keep, queue=key(queue), limit=limit, offset=offset)
        states, envelopes, now = await self._engine.call(work)
        return [
            WaitingTask(
                envelope=Envelope.read(message.encode(), task_id=unkey(name), queue=queue)[0],
                place="delayed" if place else "ready",
                due_in=max(0, at - now) / MICRO if place else 0.0,
                attempt=attempt,
                deliveries=deliveries,
            )
            for (place, at, attempt, deliveries, name), message in zip(states, envelopes, strict=True)
        ]

    async def purge(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker.purge`. In steps of 1000 tasks, each atomic."""
        return await self._delete(queue, task_ids, dead=False)

    async def stats(self, queue: str) -> QueueStats:
        """See `Broker.stats`. Counts as it is called: some 30 ms for 200,000 tasks."""
        return await self._engine.call(partial(moves.count, keep=self._keep, queue=key(queue)))

    # --- dead letters ---------------------------------------------------------------------------------------------

    async def list_dead_letters(self, queue: str, *, limit: int = 50, offset: int = 0) -> list[DeadLetter]:
        """See `Broker.list_dead_letters`."""
        work = partial(moves.list_dead, keep=self._keep, queue=key(queue), limit=limit, offset=offset)
        return list(_letters(queue, await self._engine.call(work)))

    async def get_dead_letter(self, queue: str, task_id: str) -> DeadLetter | None:
        """See `Broker.get_dead_letter`."""
        work = partial(moves.find_dead, keep=self._keep, queue=key(queue), task_ids=[task_id])
        _, letters = await self._engine.call(work)
        return next(_letters(queue, letters), None)

    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float = 0.0
    ) -> list[DeadLetter | None]:
        """See `Broker.replay_dead_letters`."""
        work = partial(moves.replay, keep=self._keep, queue=key(queue), task_ids=task_ids, delay=micro(delay))
        positions, letters = await self._engine.call(work)
        result: list[DeadLetter | None] = [None] * len(task_ids)
        for position, letter in zip(positions, _letters(queue, letters), strict=True):
            result[position] = letter
        return result

    async def purge_dead_letters(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker.purge_dead_letters`. In steps of 1000 letters, each atomic."""
        return await self._delete(queue, task_ids, dead=True)

    async def _delete(self, queue: str, task_ids: Sequence[str] | None, *, dead: bool) -> int:
        engine = self._engine
        work = partial(moves.purge, keep=self._keep, queue=key(queue), task_ids=task_ids, dead=dead)
        count = total = await engine.call(work)
        while task_ids is None and count:
            count = await engine.call(work)
            total += count
        return total

    # --- broadcasts -----------------------------------------------------------------------------------------------

    async def broadcast(self, channel: str, message: bytes) -> None:
        """See `Broker.broadcast`."""
        await self._engine.call(partial(send, channel=channel, message=message))

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        """See `Broker.subscribe`. Messages are kept for ten minutes, or until there are 10,000 newer ones."""
        return self._subscribe(channel)

    @asynccontextmanager
    async def _subscribe(self, channel: str) -> AsyncGenerator[Subscription, None]:
        subscription = SqliteSubscription(self._engine, channel)
        self._subscriptions[subscription] = None
        try:
            await subscription.begin()
            yield subscription
        finally:
            subscription.close()
            del self._subscriptions[subscription]


def _rows(envelopes: Sequence[Envelope]) -> Iterator[tuple[list[tuple[Any, ...]], frozenset[str]]]:
    """Envelopes as rows of the statement that publishes them, in chunks, with the queues of each chunk."""
    rows: list[tuple[Any, ...]] = []
    queues: set[str] = set()
    size = 0
    for envelope in envelopes:
        message = envelope.encode()
        if rows and (len(rows) == _CHUNK or size + len(message) > _CHUNK_BYTES):
            yield rows, frozenset(queues)
            rows, queues, size = [], set(), 0
        queue = key(envelope.queue)
        lease = max(1, micro(envelope.visibility_timeout))
        rows.append((queue, key(envelope.id), envelope.priority, lease, message.decode()))
        queues.add(queue)
        size += len(message)
    if rows:
        yield rows, frozenset(queues)


def _checked(settlements: Sequence[tuple[Lease, Settlement]]) -> Sequence[tuple[Lease, Settlement]]:
    for _, settlement in settlements:
        if not isinstance(settlement, _SETTLEMENTS):
            raise TypeError(f"not a settlement: {settlement!r}")
    return settlements


def _claim(
    work: Transaction, *, keep: moves.Keep, turns: moves.Turns, queues: list[str], limit: int, waits: bool
) -> _Claimed:
    rows, envelopes, token = moves.claim(work, keep, turns, queues, limit)
    change_in = moves.next_change(work, queues) if waits and not rows else 0.0
    return rows, envelopes, token, work.now.wall, change_in


def _delivery(row: Row, message: str, token: int, wall: int, asked_at: float) -> Delivery:
    number, attempt, deliveries, strikes, revoked, lasts, name, queue = row
    envelope, unreadable = Envelope.read(message.encode(), task_id=unkey(name), queue=unkey(queue))
    seconds = lasts / MICRO
    lease = Lease(
        task_id=envelope.id,
        queue=envelope.queue,
        token=token,
        duration=seconds,
        deadline=asked_at + seconds,
        receipt=str(number),
    )
    return Delivery(
        envelope=envelope,
        lease=lease,
        attempt=attempt,
        deliveries=deliveries + 1,
        strikes=strikes,
        claimed_at=wall / MICRO,
        revoked=None if revoked is None else unpack(revoked)[0],
        unreadable=unreadable,
    )


def _letters(queue: str, letters: Letters) -> Iterator[DeadLetter]:
    for (letter, attempt, deliveries, strikes, name), message in zip(*letters, strict=True):
        reason, detail, wall = unpack(letter)
        yield DeadLetter(
            envelope=Envelope.read(message.encode(), task_id=unkey(name), queue=queue)[0],
            reason=reason,
            detail=detail,
            dead_at=wall / MICRO,
            attempt=attempt,
            deliveries=deliveries,
            strikes=strikes,
        )
