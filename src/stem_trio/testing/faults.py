"""Stores that fail on demand, at named points: to see what a program does when they do.

Every operation of a store has two points, before and after it has taken effect: ``broker.settle:before``,
``broker.settle:after``. At each a test can let the call fail, hang, or do anything else (such as ending the process).
Between any two steps that a worker takes with its stores lies such a point, so that a loop over all of them covers
every moment at which a crash may find it.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, final

import attrs
import trio

from ..abc import Broker, ResultBackend
from ..errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from ..abc import StatusWatch, Subscription
    from ..envelope import DeadLetter, Delivery, Envelope, Lease, QueueStats, WaitingTask
    from ..outcome import Settlement
    from ..status import TaskStatus, WorkerHeartbeat

__all__ = ["Faults", "FaultyBackend", "FaultyBroker"]

T = TypeVar("T")
When = Literal["before", "after"]


@attrs.define
class _Rule:
    point: str
    action: Callable[[], Awaitable[object] | object]
    skip: int
    times: float


@final
class Faults:
    """What is to go wrong, and a record of what was done. One may serve several stores.

    Attributes:
        trace: the points reached so far, in order.
        down: while true, every operation fails before it takes effect.
    """

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.down = False
        self._rules: list[_Rule] = []

    def at(
        self,
        point: str,
        action: Callable[[], Awaitable[object] | object],
        *,
        skip: int = 0,
        times: float = float("inf"),
    ) -> None:
        """Call `action` when a point is reached.

        Args:
            point: such as ``broker.settle:before``.
            action: a sync or async function; what it raises, the store's operation raises.
            skip: how often to let the point pass first.
            times: how often to act then.
        """
        self._rules.append(_Rule(point, action, skip, times))

    def fail(self, operation: str, *, when: When = "before", skip: int = 0, times: float = float("inf")) -> None:
        """Let an operation fail as if the store were away.

        Args:
            operation: such as ``broker.settle``.
            when: before it takes effect, or after it, which the caller cannot tell.
            skip: how many calls to let pass first.
            times: how many calls fail then.
        """

        def unavailable() -> None:
            raise StoreUnavailableError(f"{operation} fails on demand", maybe_applied=when == "after")

        self.at(f"{operation}:{when}", unavailable, skip=skip, times=times)

    def hang(self, operation: str, *, when: When = "before", skip: int = 0, times: float = float("inf")) -> None:
        """Let an operation wait for ever. Arguments as `fail`."""
        self.at(f"{operation}:{when}", trio.sleep_forever, skip=skip, times=times)

    def clear(self) -> None:
        """Let everything work again."""
        self._rules.clear()
        self.down = False

    async def reach(self, point: str) -> None:
        """A store has come to a point."""
        self.trace.append(point)
        if self.down and point.endswith(":before"):
            await trio.lowlevel.checkpoint()
            raise StoreUnavailableError(f"{point}: the store is down")
        for rule in list(self._rules):
            if rule.point != point or rule.times <= 0:
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            rule.times -= 1
            result = rule.action()
            if inspect.isawaitable(result):
                await result

    async def around(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        """An operation with its two points."""
        await self.reach(f"{operation}:before")
        result = await call()
        await self.reach(f"{operation}:after")
        return result


@final
class FaultyBroker(Broker):
    """A broker whose operations pass through `Faults`. Opening and closing it opens and closes the one inside."""

    def __init__(self, inner: Broker, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def __aenter__(self) -> Self:
        """Open the broker inside."""
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the broker inside."""
        await self.inner.__aexit__(kind, error, traceback)

    async def publish(self, envelopes: Sequence[Envelope], *, delay: float = 0.0) -> list[bool]:
        """See `Broker`."""
        return await self.faults.around("broker.publish", partial(self.inner.publish, envelopes, delay=delay))

    async def claim(self, queues: Sequence[str], *, consumer: str, limit: int, wait: float) -> list[Delivery]:
        """See `Broker`."""
        call = partial(self.inner.claim, queues, consumer=consumer, limit=limit, wait=wait)
        return await self.faults.around("broker.claim", call)

    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Broker`."""
        return await self.faults.around("broker.renew", partial(self.inner.renew, leases))

    async def settle(self, settlements: Sequence[tuple[Lease, Settlement]]) -> list[bool]:
        """See `Broker`."""
        return await self.faults.around("broker.settle", partial(self.inner.settle, settlements))

    async def revoke(self, queue: str, task_ids: Sequence[str], *, reason: str = "") -> list[bool]:
        """See `Broker`."""
        return await self.faults.around("broker.revoke", partial(self.inner.revoke, queue, task_ids, reason=reason))

    async def revocations(self, queue: str, task_ids: Sequence[str]) -> list[str | None]:
        """See `Broker`."""
        return await self.faults.around("broker.revocations", partial(self.inner.revocations, queue, task_ids))

    async def peek(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[WaitingTask]:
        """See `Broker`."""
        return await self.faults.around("broker.peek", partial(self.inner.peek, queue, limit=limit, offset=offset))

    async def purge(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker`."""
        return await self.faults.around("broker.purge", partial(self.inner.purge, queue, task_ids))

    async def stats(self, queue: str) -> QueueStats:
        """See `Broker`."""
        return await self.faults.around("broker.stats", partial(self.inner.stats, queue))

    async def list_dead_letters(self, queue: str, *, limit: int = 50, offset: int = 0) -> list[DeadLetter]:
        """See `Broker`."""
        call = partial(self.inner.list_dead_letters, queue, limit=limit, offset=offset)
        return await self.faults.around("broker.list_dead_letters", call)

    async def get_dead_letter(self, queue: str, task_id: str) -> DeadLetter | None:
        """See `Broker`."""
        return await self.faults.around("broker.get_dead_letter", partial(self.inner.get_dead_letter, queue, task_id))

    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float = 0.0
    ) -> list[DeadLetter | None]:
        """See `Broker`."""
        call = partial(self.inner.replay_dead_letters, queue, task_ids, delay=delay)
        return await self.faults.around("broker.replay_dead_letters", call)

    async def purge_dead_letters(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """See `Broker`."""
        call = partial(self.inner.purge_dead_letters, queue, task_ids)
        return await self.faults.around("broker.purge_dead_letters", call)

    async def broadcast(self, channel: str, message: bytes) -> None:
        """See `Broker`."""
        await self.faults.around("broker.broadcast", partial(self.inner.broadcast, channel, message))

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        """See `Broker`; has the points ``broker.subscribe`` when entered and ``broker.receive`` at each message."""
        return self._subscribe(channel)

    @asynccontextmanager
    async def _subscribe(self, channel: str) -> AsyncGenerator[Subscription, None]:
        await self.faults.reach("broker.subscribe:before")
        async with self.inner.subscribe(channel) as subscription:
            await self.faults.reach("broker.subscribe:after")
            yield _FaultySubscription(subscription, self.faults)


@final
class _FaultySubscription:
    def __init__(self, inner: Subscription, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def receive(self) -> bytes:
        return await self._faults.around("broker.receive", self._inner.receive)


@final
class FaultyBackend(ResultBackend):
    """A result backend whose operations pass through `Faults`. Opens and closes the one inside."""

    def __init__(self, inner: ResultBackend, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def __aenter__(self) -> Self:
        """Open the backend inside."""
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the backend inside."""
        await self.inner.__aexit__(kind, error, traceback)

    async def record(self, statuses: Sequence[TaskStatus]) -> list[bool]:
        """See `ResultBackend`."""
        return await self.faults.around("backend.record", partial(self.inner.record, statuses))

    async def get(self, task_id: str) -> TaskStatus | None:
        """See `ResultBackend`."""
        return await self.faults.around("backend.get", partial(self.inner.get, task_id))

    def watch(self, task_id: str) -> AbstractAsyncContextManager[StatusWatch]:
        """See `ResultBackend`; has the point ``backend.watch`` when entered."""
        return self._watch(task_id)

    @asynccontextmanager
    async def _watch(self, task_id: str) -> AsyncGenerator[StatusWatch, None]:
        await self.faults.reach("backend.watch:before")
        async with self.inner.watch(task_id) as watch:
            await self.faults.reach("backend.watch:after")
            yield watch

    async def put_heartbeat(self, heartbeat: WorkerHeartbeat, *, ttl: float) -> None:
        """See `ResultBackend`."""
        await self.faults.around("backend.put_heartbeat", partial(self.inner.put_heartbeat, heartbeat, ttl=ttl))

    async def remove_heartbeat(self, worker: str) -> None:
        """See `ResultBackend`."""
        await self.faults.around("backend.remove_heartbeat", partial(self.inner.remove_heartbeat, worker))

    async def list_heartbeats(self) -> list[WorkerHeartbeat]:
        """See `ResultBackend`."""
        return await self.faults.around("backend.list_heartbeats", self.inner.list_heartbeats)
