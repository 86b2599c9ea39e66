"""A broker in the memory of one process."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio

from ..._validate import duration, integer
from ...abc import Broker
from ...clock import SystemClock
from ...envelope import QueueStats
from ...errors import StoreClosedError
from ._base import MemoryStore
from ._queue import DEAD, Held, TaskQueue
from ._waiting import notify, wait_for_work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import timedelta

    from ...abc import Subscription
    from ...clock import WallClock
    from ...envelope import DeadLetter, Delivery, Envelope, Lease, WaitingTask
    from ...outcome import Settlement
    from ._queue import Lane

__all__ = ["InMemoryBroker"]

_EMPTY = QueueStats(ready=0, delayed=0, leased=0, dead=0)
_MIN_QUEUES = 64
"""Below this number of queues none is forgotten for being idle."""


@final
class InMemoryBroker(MemoryStore, Broker):
    """Holds tasks in memory, with leases, delays, priorities, dead letters and broadcasts like any other broker.

    Any number of producers and workers share one instance within one trio run. It is opened by one ``async with`` block
    at a time; the content is kept when the block is left. Every operation is one checkpoint followed by one step: a
    cancelled call has done nothing at all, also where the contract would allow more. Interrupts (Ctrl-C) cannot strike
    within that step either.

    Leases and delays are counted by `trio.current_time`, so a fake clock drives them.

    Beyond the contract: `claim` puts priority first across all queues given, whereupon the one that was served least
    recently has its turn; a task that comes back, by release or by the end of its lease, is handed out before those
    of its priority that were published after it.

    Args:
        clock: tells the time of day for `Delivery.claimed_at` and `DeadLetter.dead_at`. Default: the machine's clock.
        dead_letter_retention: seconds (or timedelta) for which a dead letter is kept. Default 7 days.
        max_dead_letters: how many of them a queue keeps; the oldest make room for new ones. Default 10,000.
        broadcast_buffer: how many messages a subscriber may lag behind before it loses the oldest. Default 1024.

    Raises:
        InvalidOptionError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        clock: WallClock | None = None,
        dead_letter_retention: float | timedelta = 7 * 86_400.0,
        max_dead_letters: int = 10_000,
        broadcast_buffer: int = 1024,
    ) -> None:
        super().__init__()
        self._clock = clock if clock is not None else SystemClock()
        self._keep_dead = duration("dead_letter_retention", dead_letter_retention, positive=True)
        self._max_dead = integer("max_dead_letters", max_dead_letters, minimum=1)
        self._buffer = integer("broadcast_buffer", broadcast_buffer, minimum=1)
        self._ids: dict[str, Held] = {}
        self._queues: dict[str, TaskQueue] = {}
        self._max_queues = _MIN_QUEUES
        self._tokens = itertools.count(1)
        self._turns = itertools.count(1)
        self._channels: dict[str, dict[_Subscription, None]] = {}

    # --- queues -------------------------------------------------------------------------------------------------------

    def _find(self, name: str, now: float) -> TaskQueue | None:
        """A queue as it is now, or None where nothing ever was."""
        queue = self._queues.get(name)
        if queue is not None and now >= queue.wake_at:
            queue.advance(now)
        return queue

    def _find_or_add(self, name: str, now: float) -> TaskQueue:
        queue = self._find(name, now)
        if queue is None:
            queue = self._queues[name] = TaskQueue(
                name, self._ids, clock=self._clock, keep_dead=self._keep_dead, max_dead=self._max_dead
            )
        return queue

    def _bound_queues(self, now: float) -> None:
        """Forget idle queues when there are many: names may be made up at run time, one per customer say.

        Looking only after each doubling keeps the cost down. Done at the start of an operation, before it finds its
        queues, since a queue that is found is idle until something is put in.
        """
        if len(self._queues) < self._max_queues:
            return
        for queue in list(self._queues.values()):
            queue.advance(now)
            if queue.idle:
                del self._queues[queue.name]
        self._max_queues = max(_MIN_QUEUES, 2 * len(self._queues))

    # --- tasks --------------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def publish(self, envelopes: Sequence[Envelope], *, delay: float = 0.0) -> list[bool]:
        """See `Broker.publish`.

        Cancellation: nothing is published.
        """
        await self._enter_operation()
        now = trio.current_time()
        self._bound_queues(now)
        due = now + delay if delay > 0 else None
        ids = self._ids
        touched: dict[str, TaskQueue] = {}
        results = []
        for envelope in envelopes:
            task_id = envelope.id
            if task_id in ids and self._holds(task_id, now):
                results.append(False)
                continue
            queue = touched.get(envelope.queue)
            if queue is None:
                queue = touched[envelope.queue] = self._find_or_add(envelope.queue, now)
            ids[task_id] = held = Held(envelope)
            queue.add(held, due)
            results.append(True)
        for queue in touched.values():
            notify(queue)
        return results

    def _holds(self, task_id: str, now: float) -> bool:
        """Whether an id is still held, now that dead letters whose retention has ended are gone."""
        held = self._ids[task_id]
        if held.place == DEAD and held.until <= now:
            self._find(held.envelope.queue, now)
        return task_id in self._ids

    @trio.lowlevel.enable_ki_protection
    async def claim(
        self,
        queues: Sequence[str],
        *,
        consumer: str,  # noqa: ARG002 - the token alone tells who holds what
        limit: int,
        wait: float,
    ) -> list[Delivery]:
        """See `Broker.claim`; for the order across queues see the class.

        Cancellation: nothing is claimed.
        """
        integer("limit", limit, minimum=1)
        give_up = trio.current_time() + wait
        await trio.lowlevel.checkpoint()
        while True:
            self._require_open()
            now = trio.current_time()
            self._bound_queues(now)
            sources = [self._find_or_add(name, now) for name in dict.fromkeys(queues)]
            deliveries = self._take(sources, limit, now)
            if deliveries or now >= give_up:
                return deliveries
            until = give_up
            for queue in sources:
                until = min(until, queue.ready_at)
            # Queues found now may be forgotten and made anew before this claim runs again, so it finds them again then.
            await wait_for_work(sources, until)

    def _take(self, queues: list[TaskQueue], limit: int, now: float) -> list[Delivery]:
        if not any(queue.ready for queue in queues):
            return []
        claimed_at = self._clock.now()
        deliveries: list[Delivery] = []
        if len(queues) == 1:
            for lane in queues[0].lanes:
                deliveries += queues[0].take(lane, limit - len(deliveries), now, claimed_at, self._tokens)
        else:
            levels = {lane.priority for queue in queues for lane in queue.lanes if lane.live()}
            for priority in sorted(levels, reverse=True):
                self._take_level(queues, priority, limit, now, claimed_at, deliveries)
        for queue in queues:
            notify(queue)
        return deliveries

    def _take_level(
        self,
        queues: list[TaskQueue],
        priority: int,
        limit: int,
        now: float,
        claimed_at: float,
        deliveries: list[Delivery],
    ) -> None:
        """Take tasks of one priority from several queues in turns, the one served least recently first.

        A turn that were merely counted on per claim could starve a queue for good when claims from other lists of
        queues fall in step with it.
        """
        sources = [
            (queue, lane) for queue in queues for lane in queue.lanes if lane.priority == priority and lane.live()
        ]
        sources.sort(key=_last_served)
        while sources and len(deliveries) < limit:
            share = max(1, (limit - len(deliveries)) // len(sources))
            for queue, lane in sources:
                if len(deliveries) == limit:
                    return
                deliveries += queue.take(lane, share, now, claimed_at, self._tokens)
                queue.served = next(self._turns)
            sources = [source for source in sources if source[1].live()]

    @trio.lowlevel.enable_ki_protection
    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Broker.renew`.

        Cancellation: nothing is renewed.
        """
        await self._enter_operation()
        now = trio.current_time()
        results = []
        for lease in leases:
            queue = self._find(lease.queue, now)
            results.append(queue is not None and queue.renew(lease, now))
        return results

    @trio.lowlevel.enable_ki_protection
    async def settle(self, settlements: Sequence[tuple[Lease, Settlement]]) -> list[bool]:
        """See `Broker.settle`.

        Cancellation: nothing is settled.
        """
        await self._enter_operation()
        now = trio.current_time()
        touched: dict[str, TaskQueue | None] = {}
        results = []
        for lease, settlement in settlements:
            name = lease.queue
            if name not in touched:
                touched[name] = self._find(name, now)
            queue = touched[name]
            results.append(queue is not None and queue.settle(lease, settlement, now))
        for queue in touched.values():
            if queue is not None:
                notify(queue)
        return results

    @trio.lowlevel.enable_ki_protection
    async def revoke(self, queue: str, task_ids: Sequence[str], *, reason: str = "") -> list[bool]:
        """See `Broker.revoke`.

        Cancellation: nothing is revoked.
        """
        await self._enter_operation()
        found = self._find(queue, trio.current_time())
        if found is None:
            return [False] * len(task_ids)
        results = [found.revoke(task_id, reason) for task_id in task_ids]
        notify(found)
        return results

    @trio.lowlevel.enable_ki_protection
    async def revocations(self, queue: str, task_ids: Sequence[str]) -> list[str | None]:
        """See `Broker.revocations`."""
        await self._enter_operation()
        found = self._find(queue, trio.current_time())
        return [None if found is None else found.revocation(task_id) for task_id in task_ids]

    @trio.lowlevel.enable_ki_protection
    async def peek(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[WaitingTask]:
        """See `Broker.peek`."""
        await self._enter_operation()
        now = trio.current_time()
        found = self._find(queue, now)
        return [] if found is None else found.peek(limit, offset, now)

    @trio.lowlevel.enable_ki_protection
    async def purge(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker.purge`.

        Cancellation: nothing is deleted.
        """
        await self._enter_operation()
        found = self._find(queue, trio.current_time())
        return 0 if found is None else found.purge(task_ids)

    @trio.lowlevel.enable_ki_protection
    async def stats(self, queue: str) -> QueueStats:
        """See `Broker.stats`."""
        await self._enter_operation()
        found = self._find(queue, trio.current_time())
        return _EMPTY if found is None else found.stats()

    # --- dead letters -------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def list_dead_letters(self, queue: str, *, limit: int = 50, offset: int = 0) -> list[DeadLetter]:
        """See `Broker.list_dead_letters`."""
        await self._enter_operation()
        found = self._find(queue, trio.current_time())
        return [] if found is None else found.list_dead(limit, offset)

    @trio.lowlevel.enable_ki_protection
    async def get_dead_letter(self, queue: str, task_id: str) -> DeadLetter | None:
        """See `Broker.get_dead_letter`."""
        await self._enter_operation()
        found = self._find(queue, trio.current_time())
        return None if found is None else found.get_dead(task_id)

    @trio.lowlevel.enable_ki_protection
    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float = 0.0
    ) -> list[DeadLetter | None]:
        """See `Broker.replay_dead_letters`.

        Cancellation: nothing is put back.
        """
        await self._enter_operation()
        now = trio.current_time()
        found = self._find(queue, now)
        if found is None:
            return [None] * len(task_ids)
        due = now + delay if delay > 0 else None
        replayed = [found.replay(task_id, due) for task_id in task_ids]
        notify(found)
        return replayed

    @trio.lowlevel.enable_ki_protection
    async def purge_dead_letters(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker.purge_dead_letters`.

        Cancellation: nothing is deleted.
        """
        await self._enter_operation()
        found = self._find(queue, trio.current_time())
        return 0 if found is None else found.purge_dead(task_ids)

    # --- broadcast ----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def broadcast(self, channel: str, message: bytes) -> None:
        """See `Broker.broadcast`.

        Cancellation: the message is sent to nobody.
        """
        await self._enter_operation()
        for subscription in self._channels.get(channel, ()):
            subscription.push(message)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def subscribe(self, channel: str) -> AsyncGenerator[Subscription, None]:
        """See `Broker.subscribe`; how far a subscriber may lag behind is an option of the broker."""
        await self._enter_operation()
        subscription = _Subscription(self._buffer)
        subscribers = self._channels.setdefault(channel, {})
        subscribers[subscription] = None
        try:
            yield subscription
        finally:
            subscription.close()
            subscribers.pop(subscription, None)  # gone already where the store was closed meanwhile
            if not subscribers and self._channels.get(channel) is subscribers:
                del self._channels[channel]

    # --- opening and closing ------------------------------------------------------------------------------------------

    def _rebase(self, shift: float) -> None:
        for queue in self._queues.values():
            queue.rebase(shift)

    def _wake_all(self) -> None:
        for queue in self._queues.values():
            for waiter in list(queue.waiters):
                waiter.wake()
        for subscribers in self._channels.values():
            for subscription in subscribers:
                subscription.close()
        self._channels.clear()


def _last_served(source: tuple[TaskQueue, Lane]) -> int:
    return source[0].served


@final
class _Subscription:
    """One subscriber's buffer; when full, the oldest message makes room."""

    def __init__(self, size: int) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](size)

    def push(self, message: bytes) -> None:
        """Add a message."""
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            self._receive.receive_nowait()
            self._send.send_nowait(message)

    def close(self) -> None:
        """Take no more messages."""
        self._send.close()

    async def receive(self) -> bytes:
        """See `Subscription.receive`.

        Raises:
            StoreClosedError: no message is left, and the subscription or the store has ended.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StoreClosedError("the subscription has ended") from None
