"""The broker on Redis: every move is one script, every wait is the server's."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ..._groups import open_transparent_nursery
from ..._validate import duration, integer
from ...abc import Broker
from ...envelope import DeadLetter, Delivery, Envelope, Lease, QueueStats, WaitingTask
from .address import RedisAddress, parse_address
from .batch import ScriptCalls
from .joint import join
from .keys import Keyspace, pack_status, status_lifetime, unpack_state
from .rows import MICRO, act, letter, make_delivery, micro, milli, waiting_task
from .script import CHUNK, load_script
from .store import DEFAULT_PREFIX, RedisStore
from .wait import WakeWaiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from typing import Self

    from redis.credentials import CredentialProvider

    from ...abc import JointStore, ResultBackend, Subscription
    from ...outcome import Settlement
    from ...status import TaskStatus
    from .address import Tls
    from .connection import Argument
    from .script import Script

__all__ = ["RedisBroker"]

_MAX_PUBLISHERS: Final = 256
_TOGETHER: Final = 50
"""Calls to publish a task that are made one. Of a hundred at once, some then go on while the others are served."""
_PUBLISH_CHUNK: Final = 200
"""Tasks that one call publishes: while the server works on some, the next are being packed."""

_PUBLISH: Final = load_script("publish", "common", "status")
_CLAIM: Final = load_script("claim", "common")
_RENEW: Final = load_script("renew", "common")
_SETTLE: Final = load_script("settle", "common", "status")
_REVOKE: Final = load_script("revoke", "common")
_PURGE: Final = load_script("purge", "common")
_STATS: Final = load_script("stats", "common")
_PEEK: Final = load_script("peek", "common")
_DEAD_LIST: Final = load_script("dead_list", "common")
_DEAD_REPLAY: Final = load_script("dead_replay", "common")
_DEAD_PURGE: Final = load_script("dead_purge", "common")


@final
class RedisBroker(RedisStore, Broker):
    """A broker on one Redis (6.2 or later) or Valkey server. Made by `connect`.

    Args:
        address: where the server is.
        prefix: what the names of all keys begin with.
        command_timeout: seconds for which a command waits for a connection, or for an answer.
        connect_timeout: seconds that one attempt to connect may take.
        dead_letter_retention: seconds (or timedelta) for which dead letters are kept.
        max_dead_letters: how many are kept for each queue; the oldest go first.

    Raises:
        InvalidOptionError: an option is out of its range.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        prefix: str = DEFAULT_PREFIX,
        command_timeout: float | timedelta = 10.0,
        connect_timeout: float | timedelta = 5.0,
        dead_letter_retention: float | timedelta = 7 * 86_400.0,
        max_dead_letters: int = 10_000,
    ) -> None:
        super().__init__(
            address,
            prefix=prefix,
            command_timeout=duration("command_timeout", command_timeout, positive=True),
            connect_timeout=duration("connect_timeout", connect_timeout, positive=True),
        )
        self._keep_dead = duration("dead_letter_retention", dead_letter_retention, positive=True)
        self._max_dead = integer("max_dead_letters", max_dead_letters, minimum=1)
        self._waiter: WakeWaiter | None = None
        self._publishers: dict[tuple[str, bool], ScriptCalls] = {}

    def _forget(self) -> None:
        self._waiter = None
        self._publishers = {}

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        db: int | None = None,
        credentials: CredentialProvider | None = None,
        tls: Tls | None = None,
        **options: Any,
    ) -> Self:
        """A broker on the server that a URL names; it connects when it is entered.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``.
            db: number of the database, over the URL's.
            credentials: asks for user and password at each connection.
            tls: how to talk TLS, over the URL's options.
            options: those of the class.

        Raises:
            ConfigurationError: the URL cannot be read. Never shows a secret.
            InvalidOptionError: an option is out of its range.
        """
        return cls(parse_address(url, db=db, credentials=credentials, tls=tls), **options)

    # --- publishing -----------------------------------------------------------------------------------------------

    async def publish(self, envelopes: Sequence[Envelope], *, delay: float = 0.0) -> list[bool]:
        """See `Broker.publish`. One round trip for each queue; the same id in two queues is two tasks."""
        return await self.publish_with(envelopes, delay)

    async def publish_with(
        self,
        envelopes: Sequence[Envelope],
        delay: float,
        statuses: Sequence[TaskStatus] | None = None,
        keyspace: Keyspace | None = None,
    ) -> list[bool]:
        """Put tasks in, each together with its status if there are statuses, whose keys are those of `keyspace`.

        Returns, cancellation and errors as `Broker.publish` and `JointStore.publish`.
        """
        wait = 10 * micro(delay)
        if len(envelopes) == 1:
            envelope = envelopes[0]
            message = envelope.encode()
            keys: list[str] = []
            args: list[Argument] = [envelope.id, envelope.priority + wait, milli(envelope.visibility_timeout), message]
            if statuses is not None and keyspace is not None:
                keys.append(keyspace.status(envelope.id))
                args += (pack_status(statuses[0]), status_lifetime(statuses[0]))
            calls = self._publisher(envelope.queue, joint=statuses is not None)
            [new] = await calls.call(keys, args, 1, len(message))
            return [new == 1]
        result = [False] * len(envelopes)
        by_queue: dict[str, list[int]] = {}
        for position, envelope in enumerate(envelopes):
            by_queue.setdefault(envelope.queue, []).append(position)
        chunks = [
            (queue, positions[first : first + _PUBLISH_CHUNK])
            for queue, positions in by_queue.items()
            for first in range(0, len(positions), _PUBLISH_CHUNK)
        ]

        async def put(queue: str, positions: Sequence[int]) -> None:
            keys: list[str] = []
            args: list[Argument] = []
            size = 0
            for position in positions:
                envelope = envelopes[position]
                message = envelope.encode()
                size += len(message)
                args += (envelope.id, envelope.priority + wait, milli(envelope.visibility_timeout), message)
                if statuses is not None and keyspace is not None:
                    status = statuses[position]
                    keys.append(keyspace.status(status.id))
                    args += (pack_status(status), status_lifetime(status))
            calls = self._publisher(queue, joint=statuses is not None)
            for position, new in zip(positions, await calls.call(keys, args, len(positions), size), strict=True):
                result[position] = new == 1

        if len(chunks) == 1:
            await put(*chunks[0])
            return result
        await trio.lowlevel.checkpoint()
        async with open_transparent_nursery() as nursery:
            for queue, positions in chunks:
                nursery.start_soon(put, queue, positions)
                # Let it leave before the next is packed.
                await trio.lowlevel.checkpoint()
        return result

    def _publisher(self, queue: str, *, joint: bool) -> ScriptCalls:
        """What makes one script call of the tasks that are published to a queue at the same time."""
        publisher = self._publishers.get((queue, joint))
        if publisher is None:
            if len(self._publishers) >= _MAX_PUBLISHERS:
                self._publishers.clear()  # those in use live on with their callers
            publisher = ScriptCalls(_PUBLISH, self._transport, self.keyspace.queue_keys(queue), limit=_TOGETHER)
            self._publishers[queue, joint] = publisher
        return publisher

    # --- claiming -------------------------------------------------------------------------------------------------

    async def claim(self, queues: Sequence[str], *, consumer: str, limit: int, wait: float) -> list[Delivery]:
        """See `Broker.claim`. Waits in the server, on a connection of its own."""
        until = trio.current_time() + wait
        names = tuple(dict.fromkeys(queues))
        while True:
            left = until - trio.current_time()
            deliveries, change_in = await self._take(names, consumer, limit, waits=left > 0)
            if deliveries or left <= 0:
                return deliveries
            keys = [self.keyspace.wake(queue) for queue in names]
            await self._wake_waiter().wait(keys, min(left, change_in))

    def _wake_waiter(self) -> WakeWaiter:
        nursery = self._open_nursery()
        if self._waiter is None:
            self._waiter = WakeWaiter(self.address, self._options, self._transport, nursery)
        return self._waiter

    async def _take(
        self, queues: tuple[str, ...], consumer: str, limit: int, *, waits: bool
    ) -> tuple[list[Delivery], float]:
        """What can be had now, and seconds until that may change by itself."""
        # Counted from before the request: the server counts from when it arrives, which is later.
        asked_at = trio.current_time()
        keys = [key for queue in queues for key in self.keyspace.queue_keys(queue)]
        args: list[Argument] = [min(limit, CHUNK), consumer, int(waits)]
        release = partial(self._release, queues)
        time, change_in, taken = await _CLAIM.call(self._transport, keys, args, on_abandoned=release)
        deliveries: list[Delivery] = []
        for number, ids, messages, states, reasons in taken:
            queue = queues[number - 1]
            for position, task_id in enumerate(ids):
                reason = reasons[position] if reasons else None
                deliveries.append(
                    make_delivery(queue, task_id, messages[position], states[position], reason, time / MICRO, asked_at)
                )
        if len(taken) > 1:
            deliveries.sort(key=_by_priority)
        return deliveries, change_in / MICRO if change_in >= 0 else math.inf

    def _release(self, queues: tuple[str, ...], result: Any) -> None:
        """Give back what was taken for a claim that was cancelled before the answer came."""
        if self._transport_in_use is None:
            return
        for number, ids, _, states, _ in result[2]:
            args: list[Argument] = [micro(self._keep_dead), self._max_dead]
            for task_id, packed in zip(ids, states, strict=True):
                args += (task_id, int(unpack_state(packed).token), "L")
            keys = self.keyspace.queue_keys(queues[number - 1])
            self._transport_in_use.submit_nowait(_SETTLE.pack(keys, args))

    # --- leases ---------------------------------------------------------------------------------------------------

    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Broker.renew`. One round trip for each queue and 500 leases."""
        return await self._by_lease(
            _RENEW, [], leases, [(lease.task_id, lease.token, micro(lease.duration)) for lease in leases]
        )

    async def settle(self, settlements: Sequence[tuple[Lease, Settlement]]) -> list[bool]:
        """See `Broker.settle`. One round trip for each queue and 500 settlements."""
        head: list[Argument] = [micro(self._keep_dead), self._max_dead]
        rows = [(lease.task_id, lease.token, act(settlement)) for lease, settlement in settlements]
        return await self._by_lease(_SETTLE, head, [lease for lease, _ in settlements], rows)

    async def settle_with(
        self, endings: Sequence[tuple[Lease, Settlement, TaskStatus]], keyspace: Keyspace
    ) -> list[bool]:
        """End deliveries, and write with each its status, whose keys are those of `keyspace`.

        Returns, cancellation and errors as `JointStore.settle`.
        """
        head: list[Argument] = [micro(self._keep_dead), self._max_dead]
        rows = [
            (lease.task_id, lease.token, act(settlement), pack_status(status), status_lifetime(status))
            for lease, settlement, status in endings
        ]
        keys = [keyspace.status(status.id) for _, _, status in endings]
        return await self._by_lease(_SETTLE, head, [lease for lease, _, _ in endings], rows, keys)

    async def _by_lease(
        self,
        script: Script,
        head: list[Argument],
        leases: Sequence[Lease],
        rows: Sequence[tuple[Argument, ...]],
        keys: Sequence[str] = (),
    ) -> list[bool]:
        """Call a script for rows that belong to leases, each with a key of its own if there are keys."""
        result = [False] * len(leases)
        by_queue: dict[str, list[int]] = {}
        for position, lease in enumerate(leases):
            by_queue.setdefault(lease.queue, []).append(position)
        if not by_queue:
            await trio.lowlevel.checkpoint()
        for queue, positions in by_queue.items():
            for first in range(0, len(positions), CHUNK):
                chunk = positions[first : first + CHUNK]
                args = [*head]
                for position in chunk:
                    args += rows[position]
                all_keys = self.keyspace.queue_keys(queue)
                if keys:
                    all_keys = (*all_keys, *[keys[position] for position in chunk])
                done = await script.call(self._transport, all_keys, args)
                for position, applied in zip(chunk, done, strict=True):
                    result[position] = applied == 1
        return result

    def join(self, backend: ResultBackend) -> JointStore | None:
        """See `Broker.join`. Joined with a backend at the same address, user and database included."""
        return join(self, backend)

    # --- operating ------------------------------------------------------------------------------------------------

    async def revoke(self, queue: str, task_ids: Sequence[str], *, reason: str = "") -> list[bool]:
        """See `Broker.revoke`."""
        return [bool(done) for done in await self._on_queue(_REVOKE, queue, [reason, *task_ids])]

    async def revocations(self, queue: str, task_ids: Sequence[str]) -> list[str | None]:
        """See `Broker.revocations`."""
        if not task_ids:
            await trio.lowlevel.checkpoint()
            return []
        reasons = await self._transport.call("HMGET", self.keyspace.revoked(queue), *task_ids, repeatable=True)
        return [None if reason is None else reason.decode() for reason in reasons]

    async def peek(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[WaitingTask]:
        """See `Broker.peek`."""
        rows = zip(*await self._on_queue(_PEEK, queue, [limit, offset]), strict=True)
        return [waiting_task(queue, *row) for row in rows]

    async def purge(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker.purge`. In steps of 500 tasks, each atomic."""
        return await self._delete(_PURGE, queue, task_ids)

    async def stats(self, queue: str) -> QueueStats:
        """See `Broker.stats`."""
        ready, delayed, leased, dead = await self._on_queue(_STATS, queue, [])
        return QueueStats(ready=ready, delayed=delayed, leased=leased, dead=dead)

    # --- dead letters ---------------------------------------------------------------------------------------------

    async def list_dead_letters(self, queue: str, *, limit: int = 50, offset: int = 0) -> list[DeadLetter]:
        """See `Broker.list_dead_letters`."""
        rows = zip(*await self._on_queue(_DEAD_LIST, queue, [limit, offset]), strict=True)
        return [letter(queue, *row) for row in rows]

    async def get_dead_letter(self, queue: str, task_id: str) -> DeadLetter | None:
        """See `Broker.get_dead_letter`."""
        rows = list(zip(*await self._on_queue(_DEAD_LIST, queue, ["id", task_id]), strict=True))
        return letter(queue, *rows[0]) if rows else None

    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float = 0.0
    ) -> list[DeadLetter | None]:
        """See `Broker.replay_dead_letters`."""
        rows = await self._on_queue(_DEAD_REPLAY, queue, [micro(delay), *task_ids])
        return [letter(queue, *row) if row else None for row in rows]

    async def purge_dead_letters(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker.purge_dead_letters`. In steps of 500 letters, each atomic."""
        return await self._delete(_DEAD_PURGE, queue, task_ids)

    async def _delete(self, script: Any, queue: str, task_ids: Sequence[str] | None) -> int:
        total = 0
        if task_ids is not None:
            if not task_ids:
                await trio.lowlevel.checkpoint()
            for first in range(0, len(task_ids), CHUNK):
                total += await self._on_queue(script, queue, list(task_ids[first : first + CHUNK]))
            return total
        while count := await self._on_queue(script, queue, []):
            total += count
        return total

    # --- broadcasts -----------------------------------------------------------------------------------------------

    async def broadcast(self, channel: str, message: bytes) -> None:
        """See `Broker.broadcast`."""
        await self._transport.call("PUBLISH", self.keyspace.channel(channel), message)

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        """See `Broker.subscribe`."""
        return self._subscribe(channel)

    @asynccontextmanager
    async def _subscribe(self, channel: str) -> AsyncGenerator[Subscription, None]:
        pubsub = await self._pubsub()
        async with pubsub.subscribe(self.keyspace.channel(channel)) as inbox:
            yield inbox

    async def _on_queue(self, script: Any, queue: str, args: Sequence[Argument]) -> Any:
        return await self._script(script, self.keyspace.queue_keys(queue), args)


def _by_priority(delivery: Delivery) -> int:
    return -delivery.envelope.priority
