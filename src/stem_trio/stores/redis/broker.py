"""The broker on Redis: every move is one script, every wait is the server's."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from ..._validate import duration, integer
from ...abc import Broker
from ...envelope import DeadLetter, Delivery, Envelope, Lease, QueueStats, WaitingTask
from ...outcome import Complete, MoveToDead, Release, Retry, Settlement
from .address import RedisAddress, parse_address
from .gather import Gatherer
from .keys import unpack_state
from .script import load_script
from .store import DEFAULT_PREFIX, RedisStore
from .wait import WakeWaiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from typing import Self

    from redis.credentials import CredentialProvider

    from ...abc import Subscription
    from .address import Tls
    from .connection import Argument

__all__ = ["RedisBroker"]

_MICRO: Final = 1_000_000
_MAX_PUBLISHERS: Final = 256
_CHUNK: Final = 500
"""Tasks that one script call handles at most: it keeps the server from others, and Lua's stack is finite."""

_PUBLISH: Final = load_script("publish")
_CLAIM: Final = load_script("claim")
_RENEW: Final = load_script("renew")
_SETTLE: Final = load_script("settle")
_REVOKE: Final = load_script("revoke")
_PURGE: Final = load_script("purge")
_STATS: Final = load_script("stats")
_PEEK: Final = load_script("peek")
_DEAD_LIST: Final = load_script("dead_list")
_DEAD_REPLAY: Final = load_script("dead_replay")
_DEAD_PURGE: Final = load_script("dead_purge")


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
        self._publishers: dict[str, Gatherer[Envelope, bool]] = {}

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
        """See `Broker.publish`. One round trip for each queue and 500 tasks; the same id in two queues is two tasks."""
        result = [False] * len(envelopes)
        by_queue: dict[str, list[int]] = {}
        for position, envelope in enumerate(envelopes):
            by_queue.setdefault(envelope.queue, []).append(position)
        if not by_queue:
            await trio.lowlevel.checkpoint()
        for queue, positions in by_queue.items():
            chosen = [envelopes[position] for position in positions]
            if delay > 0:
                added = await self._publish_to(queue, delay, chosen)
            else:
                added = await self._publisher(queue).call(chosen)
            for position, new in zip(positions, added, strict=True):
                result[position] = new
        return result

    def _publisher(self, queue: str) -> Gatherer[Envelope, bool]:
        """What makes one script call of the tasks that are published to a queue at the same time."""
        publisher = self._publishers.get(queue)
        if publisher is None:
            if len(self._publishers) >= _MAX_PUBLISHERS:
                self._publishers.clear()  # those in use live on with their callers
            publisher = Gatherer(partial(self._publish_to, queue, 0.0), self._open_nursery(), limit=_CHUNK)
            self._publishers[queue] = publisher
        return publisher

    async def _publish_to(self, queue: str, delay: float, envelopes: Sequence[Envelope]) -> list[bool]:
        result: list[bool] = []
        for first in range(0, len(envelopes), _CHUNK):
            args: list[Argument] = [_micro(delay)]
            for envelope in envelopes[first : first + _CHUNK]:
                args += (envelope.id, envelope.priority, _milli(envelope.visibility_timeout), envelope.encode())
            result += [bool(new) for new in await self._on_queue(_PUBLISH, queue, args)]
        return result

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
            keys = [self._keyspace.wake(queue) for queue in names]
            await self._wake_waiter().wait(keys, min(left, change_in))

    def _wake_waiter(self) -> WakeWaiter:
        nursery = self._open_nursery()
        if self._waiter is None:
            self._waiter = WakeWaiter(self._address, self._options, self._transport, nursery)
        return self._waiter

    async def _take(
        self, queues: tuple[str, ...], consumer: str, limit: int, *, waits: bool
    ) -> tuple[list[Delivery], float]:
        """What can be had now, and seconds until that may change by itself."""
        # Counted from before the request: the server counts from when it arrives, which is later.
        asked_at = trio.current_time()
        keys = [key for queue in queues for key in self._keyspace.queue_keys(queue)]
        args: list[Argument] = [min(limit, _CHUNK), consumer, int(waits)]
        release = partial(self._release, queues)
        time, change_in, taken = await _CLAIM.call(self._transport, keys, args, on_abandoned=release)
        deliveries: list[Delivery] = []
        for number, messages, states, reasons in taken:
            queue = queues[number - 1]
            for position, message in enumerate(messages):
                reason = reasons[position] if reasons else None
                deliveries.append(_delivery(queue, message, states[position], reason, time / _MICRO, asked_at))
        if len(taken) > 1:
            deliveries.sort(key=_by_priority)
        return deliveries, change_in / _MICRO if change_in >= 0 else math.inf

    def _release(self, queues: tuple[str, ...], result: Any) -> None:
        """Give back what was taken for a claim that was cancelled before the answer came."""
        if self._transport_in_use is None:
            return
        for number, messages, states, _ in result[2]:
            args: list[Argument] = [_micro(self._keep_dead), self._max_dead]
            for message, packed in zip(messages, states, strict=True):
                args += (Envelope.decode(message).id, int(unpack_state(packed).token), "L", "", "")
            keys = self._keyspace.queue_keys(queues[number - 1])
            self._transport_in_use.submit_nowait(_SETTLE.pack(keys, args))

    # --- leases ---------------------------------------------------------------------------------------------------

    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Broker.renew`. One round trip for each queue and 500 leases."""
        return await self._by_lease(
            _RENEW, [], leases, [(lease.task_id, lease.token, _micro(lease.duration)) for lease in leases]
        )

    async def settle(self, settlements: Sequence[tuple[Lease, Settlement]]) -> list[bool]:
        """See `Broker.settle`. One round trip for each queue and 500 settlements."""
        head: list[Argument] = [_micro(self._keep_dead), self._max_dead]
        rows = [(lease.task_id, lease.token, *_settlement(settlement)) for lease, settlement in settlements]
        return await self._by_lease(_SETTLE, head, [lease for lease, _ in settlements], rows)

    async def _by_lease(
        self, script: Any, head: list[Argument], leases: Sequence[Lease], rows: Sequence[tuple[Argument, ...]]
    ) -> list[bool]:
        result = [False] * len(leases)
        by_queue: dict[str, list[int]] = {}
        for position, lease in enumerate(leases):
            by_queue.setdefault(lease.queue, []).append(position)
        if not by_queue:
            await trio.lowlevel.checkpoint()
        for queue, positions in by_queue.items():
            for first in range(0, len(positions), _CHUNK):
                chunk = positions[first : first + _CHUNK]
                args = [*head]
                for position in chunk:
                    args += rows[position]
                done = await self._on_queue(script, queue, args)
                for position, applied in zip(chunk, done, strict=True):
                    result[position] = bool(applied)
        return result

    # --- operating ------------------------------------------------------------------------------------------------

    async def revoke(self, queue: str, task_ids: Sequence[str], *, reason: str = "") -> list[bool]:
        """See `Broker.revoke`."""
        return [bool(done) for done in await self._on_queue(_REVOKE, queue, [reason, *task_ids])]

    async def peek(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[WaitingTask]:
        """See `Broker.peek`."""
        messages, states, dues = await self._on_queue(_PEEK, queue, [limit, offset])
        waiting: list[WaitingTask] = []
        for message, packed, due in zip(messages, states, dues, strict=True):
            state = unpack_state(packed)
            waiting.append(
                WaitingTask(
                    envelope=Envelope.decode(message),
                    place="ready" if due < 0 else "delayed",
                    due_in=max(0.0, due / _MICRO),
                    attempt=state.attempt,
                    deliveries=state.deliveries,
                )
            )
        return waiting

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
        return [_letter(*row) for row in zip(*await self._on_queue(_DEAD_LIST, queue, [limit, offset]), strict=True)]

    async def get_dead_letter(self, queue: str, task_id: str) -> DeadLetter | None:
        """See `Broker.get_dead_letter`."""
        rows = list(zip(*await self._on_queue(_DEAD_LIST, queue, ["id", task_id]), strict=True))
        return _letter(*rows[0]) if rows else None

    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float = 0.0
    ) -> list[DeadLetter | None]:
        """See `Broker.replay_dead_letters`."""
        rows = await self._on_queue(_DEAD_REPLAY, queue, [_micro(delay), *task_ids])
        return [_letter(*row) if row else None for row in rows]

    async def purge_dead_letters(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker.purge_dead_letters`. In steps of 500 letters, each atomic."""
        return await self._delete(_DEAD_PURGE, queue, task_ids)

    async def _delete(self, script: Any, queue: str, task_ids: Sequence[str] | None) -> int:
        total = 0
        if task_ids is not None:
            if not task_ids:
                await trio.lowlevel.checkpoint()
            for first in range(0, len(task_ids), _CHUNK):
                total += await self._on_queue(script, queue, list(task_ids[first : first + _CHUNK]))
            return total
        while count := await self._on_queue(script, queue, []):
            total += count
        return total

    # --- broadcasts -----------------------------------------------------------------------------------------------

    async def broadcast(self, channel: str, message: bytes) -> None:
        """See `Broker.broadcast`."""
        await self._transport.call("PUBLISH", self._keyspace.channel(channel), message)

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        """See `Broker.subscribe`."""
        return self._subscribe(channel)

    @asynccontextmanager
    async def _subscribe(self, channel: str) -> AsyncGenerator[Subscription, None]:
        pubsub = await self._pubsub()
        async with pubsub.subscribe(self._keyspace.channel(channel)) as inbox:
            yield inbox

    async def _on_queue(self, script: Any, queue: str, args: Sequence[Argument]) -> Any:
        return await self._script(script, self._keyspace.queue_keys(queue), args)


def _delivery(
    queue: str, message: bytes, packed: bytes, reason: bytes | None, claimed_at: float, asked_at: float
) -> Delivery:
    envelope = Envelope.decode(message)
    state = unpack_state(packed)
    seconds = state.lease / 1000
    lease = Lease(
        task_id=envelope.id, queue=queue, token=int(state.token), duration=seconds, deadline=asked_at + seconds
    )
    return Delivery(
        envelope=envelope,
        lease=lease,
        attempt=state.attempt,
        deliveries=state.deliveries,
        strikes=state.strikes,
        claimed_at=claimed_at,
        revoked=None if reason is None else reason.decode(),
    )


def _by_priority(delivery: Delivery) -> int:
    return -delivery.envelope.priority


def _micro(seconds: float) -> int:
    return round(seconds * _MICRO)


def _milli(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _settlement(settlement: Settlement) -> tuple[Argument, Argument, Argument]:
    match settlement:
        case Complete():
            return "C", "", ""
        case Retry(delay):
            return "R", _micro(delay), ""
        case MoveToDead(reason, detail):
            return "D", reason, detail
        case Release():
            return "L", "", ""
        case _:
            raise TypeError(f"not a settlement: {settlement!r}")


def _letter(message: bytes, packed: bytes, letter: bytes, died: Any) -> DeadLetter:
    state = unpack_state(packed)
    reason, detail = msgspec.msgpack.decode(letter, type=tuple[str, str])
    return DeadLetter(
        envelope=Envelope.decode(message),
        reason=reason,
        detail=detail,
        dead_at=float(died) / _MICRO,
        attempt=state.attempt,
        deliveries=state.deliveries,
        strikes=state.strikes,
    )
