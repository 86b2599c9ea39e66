"""What all parts of one worker know: its stores, its limits, its name."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, TypeVar, final

import attrs

from .._bounded import bounded
from ..clock import to_datetime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from ..abc import Broker, JointStore, ResultBackend, RetryStrategy
    from ..clock import WallClock
    from ..producer import Stem
    from ..signals import StemSignals
    from ..signing import PayloadSigner
    from ..task import TaskRegistry

__all__ = ["Backoff", "Setup"]

T = TypeVar("T")


@final
@attrs.frozen(kw_only=True)
class Setup:
    """The fixed facts of one worker.

    Attributes:
        worker_id: id of this incarnation.
        queues: what it claims from.
        concurrency: handlers that may run at once.
        prefetch: deliveries that it may hold beyond those; None where that follows how fast they are started.
        broker: where tasks come from.
        backend: where statuses go.
        joint: both as one, where they are.
        registry: the tasks it knows.
        signals: whose listeners to call.
        clock: the wall clock.
        retry_strategy: for tasks without a policy of their own.
        stem: the producer for children.
        store_timeout: seconds that one call to a store may take.
        signer: verifies deliveries, if the worker has one.
    """

    worker_id: str
    queues: tuple[str, ...]
    concurrency: int
    prefetch: int | None
    broker: Broker
    backend: ResultBackend
    joint: JointStore | None
    registry: TaskRegistry
    signals: StemSignals
    clock: WallClock
    retry_strategy: RetryStrategy
    stem: Stem
    store_timeout: float
    signer: PayloadSigner | None = None

    @property
    def capacity(self) -> int:
        """Deliveries that it may hold at once, at most."""
        return self.concurrency + (self.prefetch if self.prefetch is not None else self.concurrency)

    def now(self) -> datetime:
        """The time of day, for events."""
        return to_datetime(self.clock.now())

    async def call(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        """Call a store, within the time that one call may take. Raises StoreTimeoutError."""
        return await bounded(operation, self.store_timeout, call)


@final
class Backoff:
    """Growing, jittered waits between attempts to reach a store that is away."""

    _FIRST: Final = 0.05
    _LONGEST: Final = 5.0

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = self._FIRST

    def next(self) -> float:
        """Seconds to wait now; from half to the whole of a value that doubles up to five seconds."""
        seconds = self._next
        self._next = min(seconds * 2, self._LONGEST)
        return seconds * (0.5 + random.random() / 2)

    def reset(self) -> None:
        """The store has answered."""
        self._next = self._FIRST
