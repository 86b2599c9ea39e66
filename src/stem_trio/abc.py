"""The contracts between the runtime and its stores.

A store that keeps them can be proved to by the contract suites in `stem_trio.testing.contracts`. They are batch-first:
one round trip serves many tasks. Every method is async and cancellable, and says what a cancellation leaves behind.

Any method may raise `StoreUnavailableError` when the store cannot be reached, with `maybe_applied` telling whether the
operation may have taken effect all the same; every operation here is safe to repeat after that. Any method raises
`StoreClosedError` outside of the store's ``async with`` block.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from .retry import RetryStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from .envelope import DeadLetter, Delivery, Envelope, Lease, QueueStats, WaitingTask
    from .outcome import Settlement
    from .status import TaskStatus, WorkerHeartbeat

__all__ = ["Broker", "JointStore", "ResultBackend", "RetryStrategy", "StatusWatch", "Store", "Subscription"]


class Store(ABC):
    """What brokers and result backends have in common: they are open within an ``async with`` block."""

    @property
    def answers_within(self) -> float:
        """Seconds within which every call that does not wait on purpose returns or raises by itself, come what may.

        Infinity, as by default, is no promise: callers bound their calls themselves, at the price of a scope for each.
        """
        return math.inf

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open the store."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store; its connections and tasks are gone when this returns."""


class Subscription(Protocol):
    """The receiving end of a broadcast channel."""

    async def receive(self) -> bytes:
        """The next message sent since the subscription began; waits for it.

        Cancellation: no message is lost by it.
        """
        ...


class StatusWatch(Protocol):
    """The changes of one task's status."""

    async def changed(self) -> TaskStatus:
        """The newest status recorded since the watch began, or since the last call; waits for one.

        Statuses that follow each other quickly may be skipped, the last one never is.

        Cancellation: no status is lost by it.
        """
        ...


class Broker(Store):
    """Holds envelopes: ready, delayed, leased, or dead, each in exactly one of these places.

    Every move between places is one atomic step in the store. Leases and delays are counted by the store's own clock.
    """

    @abstractmethod
    async def publish(self, envelopes: Sequence[Envelope], *, delay: float = 0.0) -> list[bool]:
        """Put tasks into their queues, to be claimed after `delay` seconds.

        An id that its queue already holds, in any place, is left as it is: publishing is idempotent.

        Returns:
            One entry for each envelope: False where the id was held already.

        Cancellation: each envelope is either published whole or not at all; which, is not known.
        """

    @abstractmethod
    async def claim(self, queues: Sequence[str], *, consumer: str, limit: int, wait: float) -> list[Delivery]:
        """Take up to `limit` tasks under lease, waiting up to `wait` seconds for the first.

        Higher priority first, across all the queues; within a priority first come, first served in each queue, as far
        as deliveries that came back allow, and the queues take turns, so that none of them is starved by another. Tasks
        whose lease has ended are handed out again, with one delivery and one strike more. A task is handed out for the
        `visibility_timeout` of its envelope. A queue that is named twice counts once.

        Args:
            queues: where to take from.
            consumer: id of the worker.
            limit: at most this many, at least 1.
            wait: seconds; 0 does not wait, infinity waits for ever.

        Cancellation: what was claimed but not returned comes back when its lease ends, or at once where the store can.
        """

    @abstractmethod
    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """Let leases last for their `duration` from now on. Never shortens one, never takes one back.

        The duration may be another than the lease was claimed with: the one that is passed counts.

        Returns:
            One entry for each lease; False when it is lost: it ended, was settled, or somebody else holds the task.

        Cancellation: each lease is either renewed or not; which, is not known.
        """

    @abstractmethod
    async def settle(self, settlements: Sequence[tuple[Lease, Settlement]]) -> list[bool]:
        """End deliveries. Each is checked against its lease in the same atomic step.

        Returns:
            One entry for each; False when the lease is stale: nothing was done.

        Cancellation: each settlement is either made whole or not at all; repeating it is safe.
        """

    @abstractmethod
    async def revoke(self, queue: str, task_ids: Sequence[str], *, reason: str = "") -> list[bool]:
        """Mark tasks that wait or are leased so that they are never run again.

        A waiting task, delayed ones too, becomes ready at once and is handed out with `Delivery.revoked` set, so that
        a worker can write its end. A leased one is handed out so if it comes back, without the delay of a retry.

        Returns:
            One entry for each id; False when the queue does not hold it, or holds it as a dead letter.

        Cancellation: each id is either marked or not; repeating it is safe.
        """

    @abstractmethod
    async def revocations(self, queue: str, task_ids: Sequence[str]) -> list[str | None]:
        """Look whether tasks that the queue holds are revoked.

        For workers, who ask when they renew leases: a broadcast reaches only those who listen at that moment.

        Returns:
            One entry for each id: the reason (may be empty), or None where there is no such mark.

        Cancellation: nothing happens to the queue.
        """

    @abstractmethod
    async def peek(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[WaitingTask]:
        """Look at tasks that wait, the ready ones in the order in which they would be claimed, then the delayed ones.

        Cancellation: nothing happens to the queue.
        """

    @abstractmethod
    async def purge(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """Delete tasks that wait (ready or delayed): all of them, or those with the given ids (of no ids, none).

        Leased tasks and dead letters stay. No status is written: `Stem.purge` does that first.

        Returns:
            How many were deleted.

        Cancellation: each task is either deleted or not; repeating it is safe.
        """

    @abstractmethod
    async def stats(self, queue: str) -> QueueStats:
        """Count the tasks of a queue by place. An unknown queue is an empty one."""

    @abstractmethod
    async def list_dead_letters(self, queue: str, *, limit: int = 50, offset: int = 0) -> list[DeadLetter]:
        """Dead letters of a queue, the newest first."""

    @abstractmethod
    async def get_dead_letter(self, queue: str, task_id: str) -> DeadLetter | None:
        """One dead letter, or None."""

    @abstractmethod
    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float = 0.0
    ) -> list[DeadLetter | None]:
        """Put dead letters back into their queue, to be claimed after `delay` seconds.

        Attempt and strikes start again at 0, deliveries count on, and a revocation is forgotten.

        Returns:
            One entry for each id: what was put back, or None where there is no such dead letter.

        Cancellation: each is either put back whole or not at all; repeating it is safe.
        """

    @abstractmethod
    async def purge_dead_letters(self, queue: str, task_ids: Sequence[str] | None = None) -> int:
        """Delete dead letters, all of a queue or those with the given ids.

        Returns:
            How many were deleted.
        """

    @abstractmethod
    async def broadcast(self, channel: str, message: bytes) -> None:
        """Send a message to everyone who is subscribed to the channel now; it is not kept for others.

        Cancellation: the message is either sent to all or to none.
        """

    @abstractmethod
    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        """Receive what is broadcast on the channel while the returned context manager is entered.

        Each subscriber receives each message once, in the order in which they were sent. A subscriber that lags far
        behind may lose the oldest ones.
        """

    def join(self, backend: ResultBackend) -> JointStore | None:  # noqa: ARG002 - for those that can
        """This broker and a backend as one store, or None when there is no more to them than to each alone.

        May be called before either of them is open.
        """
        return None


class JointStore(ABC):
    """A broker and a result backend that share one place, so that what belongs together is one step there.

    An offer, not a duty: with `Broker.join` returning None, a task and its status are written one after the other.
    """

    @property
    def answers_within(self) -> float:
        """As `Store.answers_within`."""
        return math.inf

    @abstractmethod
    async def publish(self, entries: Sequence[tuple[Envelope, TaskStatus]], *, delay: float = 0.0) -> list[bool]:
        """Put tasks into their queues as `Broker.publish` does, each with its status in the same atomic step.

        A task that is over, and whose status is still remembered, is not put in again.

        Returns:
            One entry for each; False where the id was held already, or is over: nothing was written.

        Cancellation: each task is either published with its status or not at all; which, is not known.
        """

    @abstractmethod
    async def settle(self, endings: Sequence[tuple[Lease, Settlement, TaskStatus]]) -> list[bool]:
        """End deliveries as `Broker.settle` does, each with its status in the same atomic step.

        The status is written unless a newer one is in place, as by `ResultBackend.record`.

        Returns:
            One entry for each; False when the lease is stale: neither was done.

        Cancellation: each is either done whole or not at all; repeating it is safe.
        """


class ResultBackend(Store):
    """Holds the status of tasks, and the heartbeats of workers, each for as long as it says itself."""

    @abstractmethod
    async def record(self, statuses: Sequence[TaskStatus]) -> list[bool]:
        """Write statuses, one after the other, each unless the one in place has a greater version.

        A record of equal version replaces the one in place, so that a write can be repeated and progress be updated.

        Returns:
            One entry for each status; False when a newer one was in place: nothing was written.

        Cancellation: each status is either written or not; repeating it is safe.
        """

    @abstractmethod
    async def get(self, task_id: str) -> TaskStatus | None:
        """The status of a task, or None when it is unknown or its retention has ended."""

    @abstractmethod
    def watch(self, task_id: str) -> AbstractAsyncContextManager[StatusWatch]:
        """Follow a task's status while the returned context manager is entered, from any process.

        The watch is in force once the context manager is entered: to miss nothing, enter it first and `get` then.
        """

    @abstractmethod
    async def put_heartbeat(self, heartbeat: WorkerHeartbeat, *, ttl: float) -> None:
        """Keep a worker's heartbeat, in place of its last one, for `ttl` seconds."""

    @abstractmethod
    async def remove_heartbeat(self, worker: str) -> None:
        """Forget a worker's heartbeat: it has ended."""

    @abstractmethod
    async def list_heartbeats(self) -> list[WorkerHeartbeat]:
        """The heartbeats that are in force, ordered by worker id."""
