"""Producer, stores and worker in one process."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from ._bounded import bounded
from ._groups import open_transparent_nursery
from ._validate import duration
from .client import StemClient
from .errors import WorkerStateError
from .producer import DEFAULT_MAX_PAYLOAD_SIZE
from .worker import Worker, WorkerState
from .worker.worker import DEFAULT_CONCURRENCY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from .abc import Broker, ResultBackend, RetryStrategy
    from .clock import WallClock
    from .config import StemConfig
    from .handle import TaskHandle
    from .signals import StemSignals
    from .signing import PayloadSigner
    from .task import TaskCall, TaskSource
    from .worker import WorkerLifecycleConfig

__all__ = ["StemApp"]

R = TypeVar("R")

_POLL_FIRST: Final = 0.05
_POLL_LONGEST: Final = 30.0


class StemApp(StemClient):
    """A client that also runs the tasks: it owns its stores and one worker, which the first enqueue starts.

    Leaving the block shuts the worker down warm; leaving it with an exception, hard.

    Args:
        broker: where tasks go; not open yet.
        backend: where statuses are; not open yet.
        tasks: the tasks that may be enqueued and run; modules and dotted names too, see `TaskRegistry.register_all`.
        queues: what the worker claims from; by default ``"default"`` and every queue that a task names.
        signals: whose listeners to call; by default the process-wide ones.
        clock: the wall clock.
        concurrency: see `Worker`.
        prefetch: see `Worker`.
        retry_strategy: see `Worker`.
        lifecycle: see `Worker`; operating system signals are the host's business unless it says so.
        heartbeat_interval: see `Worker`.
        max_payload_size: see `Stem`.
        store_timeout: see `Stem`.
        signer: signs what is enqueued, and verifies it in the worker.

    Raises:
        RegistrationError: one of the tasks is no task, or two have the same name.
        InvalidOptionError: an option is out of its range.

    Attributes:
        worker: the worker.
    """

    def __init__(
        self,
        broker: Broker,
        backend: ResultBackend,
        *,
        tasks: Iterable[TaskSource] = (),
        queues: Sequence[str] | None = None,
        signals: StemSignals | None = None,
        clock: WallClock | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        prefetch: int | None = None,
        retry_strategy: RetryStrategy | None = None,
        lifecycle: WorkerLifecycleConfig | None = None,
        heartbeat_interval: float | timedelta = 10.0,
        max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE,
        store_timeout: float | timedelta = 10.0,
        signer: PayloadSigner | None = None,
    ) -> None:
        super().__init__(
            broker,
            backend,
            tasks=tasks,
            signals=signals,
            clock=clock,
            max_payload_size=max_payload_size,
            store_timeout=store_timeout,
            signer=signer,
        )
        if queues is None:
            queues = list(dict.fromkeys(["default", *(task.effective.queue for task in self.registry)]))
        self.worker = Worker(
            broker,
            backend,
            registry=self.registry,
            queues=queues,
            concurrency=concurrency,
            prefetch=prefetch,
            retry_strategy=retry_strategy,
            signals=signals,
            lifecycle=lifecycle,
            heartbeat_interval=heartbeat_interval,
            clock=clock,
            max_payload_size=max_payload_size,
            store_timeout=store_timeout,
            signer=signer,
        )
        self._store_timeout = duration("store_timeout", store_timeout, positive=True)
        self._nursery: trio.Nursery | None = None
        self._worker_started = False
        self._block: AbstractAsyncContextManager[None] | None = None

    @classmethod
    def in_memory(cls, *, clock: WallClock | None = None, **options: Any) -> Self:
        """One whose stores live in this process and end with it. Takes the options of the class."""
        from .stores.memory import InMemoryBroker, InMemoryResultBackend  # noqa: PLC0415 - not in every worker's memory

        return cls(InMemoryBroker(clock=clock), InMemoryResultBackend(), clock=clock, **options)

    @classmethod
    def _configured(cls, config: StemConfig) -> dict[str, Any]:
        return config.worker_options()

    async def __aenter__(self) -> Self:
        """Open the stores. The worker starts with the first enqueue, or with `start`.

        Raises:
            WorkerStateError: it has been open before.
        """
        if self._block is not None:
            raise WorkerStateError("an app is opened once, as its worker runs once; make a new one")
        block = self._open()
        await block.__aenter__()
        self._block = block
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut the worker down (warm; hard when the block ends with an exception), and close the stores."""
        assert self._block is not None, "entered before"
        await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None, None]:
        async with self.broker, self.backend:
            try:
                async with open_transparent_nursery() as self._nursery:
                    yield
                    await self.worker.shutdown()
            finally:
                self._nursery = None

    async def start(self) -> None:
        """Start the worker, if it has not been started; returns when it is ready.

        Cancellation: the worker starts nevertheless.

        Raises:
            WorkerStateError: outside of the ``async with`` block.
        """
        if self._nursery is None:
            raise WorkerStateError("the app is not open; use it within its async with block")
        if not self._worker_started:
            # Not nursery.start: whoever is cancelled while waiting for the worker must not take it along.
            self._worker_started = True
            self._nursery.start_soon(self._work)
        await self.worker.wait_ready()

    async def _work(self) -> None:
        await self.worker.run(task_status=_EMBEDDED)

    # --- enqueueing starts the worker -----------------------------------------------------------------------------

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        """Enqueue one bound call; as `Stem.submit`."""
        await self.start()
        return await super().submit(call)

    async def enqueue_many(self, calls: Iterable[TaskCall[Any]]) -> list[str]:
        """Enqueue bound calls together; as `Stem.enqueue_many`."""
        await self.start()
        return await super().enqueue_many(calls)

    # --- for scripts and tests ------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until the queues of the worker hold nothing that is ready, delayed or running.

        Retries and children that go to those queues are waited for too, and so are the listeners of the worker's
        signals. Under a fake clock hours of delay take milliseconds.

        Cancellation: changes nothing.

        Raises:
            StoreUnavailableError: the broker cannot be reached.
            WorkerStateError: the worker has been shut down, and tasks are left.
        """
        await self.start()
        interval = _POLL_FIRST
        while True:
            if self.worker.state is WorkerState.STOPPED:
                if left := await self._unfinished():
                    raise WorkerStateError(
                        f"the worker was shut down with {left} task(s) left; nothing will drain them"
                    )
                return
            # Listeners come first: they too may enqueue.
            await self.worker.wait_told()
            # Queues are counted one after the other. A run that ends in between may have put a child into one that was
            # counted before its own, so that a count means something only when no run has ended during it.
            ended = self._ended()
            if not await self._unfinished() and not self.worker.in_flight and self._ended() == ended:
                return
            # What this worker settles wakes the wait up. Asking again is for tasks that end by other hands.
            with trio.move_on_after(interval) as scope:
                await self.worker.wait_settled()
            interval = min(interval * 2, _POLL_LONGEST) if scope.cancelled_caught else _POLL_FIRST

    def _ended(self) -> int:
        """How many runs of this worker have ended so far."""
        return sum(self.worker.totals.values())

    async def _unfinished(self) -> int:
        total = 0
        for queue in self.worker.queues:
            stats = await bounded("stats", self._store_timeout, partial(self.broker.stats, queue))
            total += stats.unfinished
        return total


class _Embedded:
    """A task status that tells the worker that it runs inside of something, and nobody anything."""

    def started(self, value: object = None) -> None:
        """The worker is ready; its state says so too."""


_EMBEDDED: Final[Any] = _Embedded()
