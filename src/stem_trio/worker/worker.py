"""The worker: a nursery of services around a nursery of runs."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import trio
from trio_util import AsyncValue

from .. import signals as signals_module
from .._groups import open_transparent_nursery, raise_unchanged, single_error
from .._validate import duration, integer, queue_name
from ..clock import SystemClock
from ..errors import InvalidOptionError, WorkerStateError
from ..events import WorkerEvent, WorkerStopped
from ..ids import new_worker_id
from ..outcome import LeaseLost
from ..producer import DEFAULT_MAX_PAYLOAD_SIZE, Stem
from ..retry import ExponentialJitterRetryStrategy
from ..task import TaskRegistry
from .control import ControlListener
from .fetch import Fetcher
from .heartbeat import Heartbeat
from .held import Holdings, Phase
from .lease import LeaseKeeper
from .lifecycle import ModeName, Shutdown, ShutdownMode, WorkerLifecycleConfig, WorkerState, watch_signals
from .limits import SoftLimits
from .notify import EventPump
from .record import StatusRecorder
from .run import Runner
from .settle import Settler
from .setup import Setup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from ..abc import Broker, ResultBackend, RetryStrategy
    from ..clock import WallClock
    from ..signals import StemSignals
    from ..signing import PayloadSigner
    from ..task import TaskSource

__all__ = ["Worker"]

DEFAULT_CONCURRENCY: Final = 32

_logger = logging.getLogger(__name__)


class _SupportsStart(Protocol):
    """A trio nursery or an anyio task group."""

    async def start(self, func: Any, /, *args: Any) -> Any: ...


@final
class Worker:
    """Runs tasks from one or more queues. A worker runs once; make a new one to run again.

    Args:
        broker: where tasks come from; open.
        backend: where statuses go; open.
        tasks: the tasks it runs; modules and dotted names too, see `TaskRegistry.register_all`.
        registry: an existing registry to use; `tasks` are added to it.
        queue: the queue to claim from. Default ``"default"``.
        queues: several queues, in place of `queue`. They take turns within each priority.
        concurrency: how many handlers may run at once. Default 32.
        prefetch: how many deliveries it may hold beyond those that run, so that a freed slot does not wait for the
            store. Held deliveries count as started when priorities are compared. Default: as many as it has started in
            the last tenth of a second, at most `concurrency`; what is held so and starts for a second no longer is
            given back, so that a worker with long tasks keeps nothing from others.
        retry_strategy: when failed tasks without a policy of their own run again. Default
            `ExponentialJitterRetryStrategy`.
        signals: whose listeners to call; by default the process-wide ones.
        lifecycle: how it starts and stops.
        heartbeat_interval: seconds (or timedelta) between signs of life. Default 10.
        name: the readable part of its id; by default the host's name.
        clock: the wall clock.
        max_payload_size: greatest size in bytes of an encoded task that a handler enqueues; see `Stem`.
        store_timeout: seconds (or timedelta) that one call to a store may take. Default 10.
        signer: verifies each task before anything of it is decoded, and signs what handlers enqueue. Default None:
            signatures are not looked at.

    Raises:
        InvalidOptionError: an option is out of its range; the message names it.
        RegistrationError: one of the tasks is no task, or two have the same name.

    Attributes:
        id: id of this incarnation, never used again.
        queues: what it claims from.
        stem: the producer through which its handlers enqueue children.
    """

    def __init__(
        self,
        broker: Broker,
        backend: ResultBackend,
        *,
        tasks: Iterable[TaskSource] = (),
        registry: TaskRegistry | None = None,
        queue: str | None = None,
        queues: Sequence[str] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        prefetch: int | None = None,
        retry_strategy: RetryStrategy | None = None,
        signals: StemSignals | None = None,
        lifecycle: WorkerLifecycleConfig | None = None,
        heartbeat_interval: float | timedelta = 10.0,
        name: str | None = None,
        clock: WallClock | None = None,
        max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE,
        store_timeout: float | timedelta = 10.0,
        signer: PayloadSigner | None = None,
    ) -> None:
        registry = registry if registry is not None else TaskRegistry()
        registry.register_all(tasks)
        signals = signals if signals is not None else signals_module.default
        clock = clock if clock is not None else SystemClock()
        concurrency = integer("concurrency", concurrency, minimum=1)
        timeout = duration("store_timeout", store_timeout, positive=True)
        stem = Stem(
            broker,
            backend,
            registry=registry,
            signals=signals,
            clock=clock,
            max_payload_size=max_payload_size,
            store_timeout=timeout,
            signer=signer,
        )
        self._setup = Setup(
            worker_id=new_worker_id(name),
            queues=_queues(queue, queues),
            concurrency=concurrency,
            prefetch=None if prefetch is None else integer("prefetch", prefetch),
            broker=broker,
            backend=backend,
            joint=broker.join(backend),
            registry=registry,
            signals=signals,
            clock=clock,
            retry_strategy=retry_strategy if retry_strategy is not None else ExponentialJitterRetryStrategy(),
            stem=stem,
            store_timeout=timeout,
            signer=signer,
        )
        self._lifecycle = lifecycle if lifecycle is not None else WorkerLifecycleConfig()
        self._heartbeat_interval = duration("heartbeat_interval", heartbeat_interval, positive=True)
        self._state = AsyncValue(WorkerState.CREATED)
        self._shutdown: Shutdown | None = None
        self._fetcher: Fetcher | None = None
        self._failure: BaseException | None = None
        self._block: AbstractAsyncContextManager[None] | None = None
        self._holdings = Holdings()
        self._pump = EventPump()
        self._settler = Settler(self._setup, self._holdings, self._pump)

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.state.value}>"

    @property
    def id(self) -> str:
        """Id of this incarnation, never used again."""
        return self._setup.worker_id

    @property
    def queues(self) -> tuple[str, ...]:
        """What it claims from."""
        return self._setup.queues

    @property
    def stem(self) -> Stem:
        """The producer through which its handlers enqueue children."""
        return self._setup.stem

    @property
    def state(self) -> WorkerState:
        """Where it is in its life."""
        state: WorkerState = self._state.value
        return state

    @property
    def totals(self) -> Mapping[str, int]:
        """How many runs have ended how.

        By ``succeeded``, ``failed``, ``retried``, ``revoked``, ``expired``, ``released`` and ``lease_lost``.
        """
        return self._settler.reporter.totals

    @property
    def in_flight(self) -> int:
        """Deliveries that it holds: waiting to start, running, or being settled."""
        return len(self._holdings)

    # --- starting -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `shutdown` is called, a signal arrives, or a part of the worker fails.

        Await it by itself, or ``await nursery.start(worker.run)`` in a trio nursery or an anyio task group. A worker
        that was shut down before does not start: this returns at once.

        Cancellation: a hard shutdown. Handlers are cancelled and deliveries given back, behind a shield that lasts
        `WorkerLifecycleConfig.force_shutdown_after` at most; then it is passed on.

        Raises:
            WorkerStateError: it has been run before.
            StoreError: a store refused an operation for a reason other than being away.
            BaseException: whatever else escaped from a part of the worker. Never an error of a handler.
        """
        if self._state.value is WorkerState.STOPPED and self._shutdown is None:
            _logger.warning("worker %s was shut down before it could start", self.id)
            task_status.started(self)
            return
        if self._state.value is not WorkerState.CREATED:
            raise WorkerStateError(f"worker {self.id} has been run before; make a new one")
        self._state.value = WorkerState.STARTING
        alone = task_status is trio.TASK_STATUS_IGNORED and _in_main_task()
        self._shutdown = Shutdown(self._lifecycle, self._on_shutdown)
        try:
            install = self._lifecycle.signals_wanted(alone=alone)
            # Below, a cancellation takes a moment to arrive, in which a worker that is not to run could start a task.
            await trio.lowlevel.checkpoint_if_cancelled()
            async with trio.open_nursery() as host:
                host.start_soon(self._follow, self._shutdown)
                if install:
                    # Waited for: whoever is told that the worker is ready may send it a signal at once.
                    await host.start(watch_signals, self._shutdown)
                # From here on the host's cancellation reaches the worker through `_follow` only, as a shutdown with
                # its own deadline, which is the shield's.
                try:
                    with self._shutdown.kill:
                        await self._serve(self._shutdown, task_status)
                    self._raise_failure()
                finally:
                    await self._ended(self._shutdown)
                host.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise_unchanged(single_error(group))
        finally:
            self._state.value = WorkerState.STOPPED

    def _raise_failure(self) -> None:
        """Raise what ended the runs, where the worker's time was over before that could get through."""
        error = self._failure
        if isinstance(error, BaseExceptionGroup):
            error = error.split(trio.Cancelled)[1]
        if error is not None and not isinstance(error, trio.Cancelled):
            raise error

    async def _ended(self, shutdown: Shutdown) -> None:
        """Everything of the worker has ended; say so, even where it ends with an error."""
        if len(self._holdings):
            _logger.error("%d task(s) could not be given back; they do so when their lease ends", len(self._holdings))
        signals = self._setup.signals
        if signals.worker_shutdown:
            with trio.move_on_after(signals.listener_timeout, shield=True):
                await signals.worker_shutdown.send(self._stopped(_name(shutdown.mode)))

    async def start(self, nursery: _SupportsStart) -> None:
        """Run in a nursery (or anyio task group); returns when the worker is ready.

        Raises:
            WorkerStateError: it has been run before.
        """
        await nursery.start(self.run)

    async def wait_ready(self) -> None:
        """Wait until the worker, started elsewhere, claims tasks, or has stopped.

        Cancellation: changes nothing.
        """
        await self._state.wait_value(lambda state: state not in (WorkerState.CREATED, WorkerState.STARTING))

    async def wait_settled(self) -> None:
        """Wait until some more of what the worker holds is settled.

        Cancellation: changes nothing.
        """
        await self._settler.wait_progress()

    async def wait_told(self) -> None:
        """Wait until listeners have been told of everything that has happened so far.

        Cancellation: changes nothing.
        """
        await self._pump.wait_empty()

    async def __aenter__(self) -> Self:
        """Run in a nursery of its own; ready when this returns."""
        block = self._running()
        await block.__aenter__()
        self._block = block  # not before: what refuses to be entered a second time must not replace the first
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut down warm; hard if the block ends with an exception."""
        assert self._block is not None, "entered before"
        await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        async with open_transparent_nursery() as nursery:
            await self.start(nursery)
            yield
            await self.shutdown()

    # --- stopping -------------------------------------------------------------------------------------------------

    async def shutdown(
        self, mode: ShutdownMode | ModeName = ShutdownMode.WARM, *, grace: float | timedelta | None = None
    ) -> None:
        """Stop, and return when nothing runs and nothing is held any more.

        Any mode stops claiming and gives back what has not started. ``warm`` lets running handlers end by themselves;
        ``soft`` also asks them to, by `TaskContext.cancelled`; after the grace period both turn into ``hard``, which
        cancels handlers and gives their tasks back with attempts and retries unchanged. A worker that is already
        stopping can be made to stop more urgently, not less. One that has not started never will.

        Args:
            mode: see above.
            grace: seconds (or timedelta) for running handlers, in place of the configured `soft_grace_period`.

        A handler or listener of the same worker that awaits this waits for itself, until one of the deadlines ends it;
        there, start it in a nursery instead.

        Cancellation: the shutdown goes on.

        Raises:
            InvalidOptionError: mode or grace is not legal.
        """
        wanted = ShutdownMode.of(mode)
        seconds = None if grace is None else duration("grace", grace)
        if self._shutdown is None:
            # It may be about to start, in a task that has not had its turn: it must not run when this has returned.
            self._state.value = WorkerState.STOPPED
        elif self._state.value is not WorkerState.STOPPED:
            self._shutdown.request(wanted, seconds)
        await self._state.wait_value(WorkerState.STOPPED)

    def _on_shutdown(self) -> None:
        shutdown = self._shutdown
        assert shutdown is not None, "only a running worker is shut down"
        self._state.value = WorkerState.DRAINING
        if self._fetcher is not None:
            self._fetcher.stop()
        signals = self._setup.signals
        if signals.worker_stopping:
            self._pump.put(signals.worker_stopping, self._stopped(_name(shutdown.mode)))
        self._holdings.limit(shutdown.stop_at)
        if shutdown.mode is not ShutdownMode.WARM:
            # Asked, not told: what does not end by itself is cancelled with the drain scope.
            for held in self._holdings:
                if held.phase is Phase.RUNNING:
                    held.cancelled.set()

    @staticmethod
    async def _follow(shutdown: Shutdown) -> None:
        """Wait to be cancelled together with whoever runs the worker, or for the grace period to end.

        Either makes the shutdown a hard one.
        """
        try:
            with shutdown.grace:
                await trio.sleep_forever()
        finally:
            shutdown.request(ShutdownMode.HARD)

    # --- the scope tree -------------------------------------------------------------------------------------------

    async def _serve(self, shutdown: Shutdown, task_status: trio.TaskStatus[Worker]) -> None:
        setup = self._setup
        heartbeat = Heartbeat(
            setup,
            self._holdings,
            self.totals,
            lambda: self._state.value.value,
            self._pump,
            self._heartbeat_interval,
        )
        await setup.signals.worker_init.send(self._event())
        try:
            async with trio.open_nursery() as services:
                for part in (
                    self._pump.run,
                    self._settler.run,
                    heartbeat.run,
                    ControlListener(setup, self._holdings).run,
                ):
                    services.start_soon(self._part, shutdown, part)
                await self._work(shutdown, services, task_status)
                services.cancel_scope.cancel()
        finally:
            # A part that has failed took the settler with it. What the runs left behind is given back here, as far as
            # the time that `close` has left allows.
            shutdown.close()
            # A scope of its own, so that running out of time does not put a cancellation in place of the error.
            with trio.CancelScope(deadline=shutdown.stop_at, shield=True):
                try:
                    await self._settler.settle_rest()
                finally:
                    try:
                        await heartbeat.end()
                    finally:
                        # Listeners that need not wait hear of what was just settled even when the time is over.
                        await self._pump.send_rest()

    async def _work(self, shutdown: Shutdown, services: trio.Nursery, task_status: trio.TaskStatus[Worker]) -> None:
        setup = self._setup
        recorder = StatusRecorder(setup)
        soft_limits = SoftLimits(setup, self._pump)
        keeper = LeaseKeeper(setup, self._holdings, lambda held: self._settler.finish(held, LeaseLost()))
        runner = Runner(setup, recorder, keeper, soft_limits, shutdown.drain)
        for part in (recorder.run, soft_limits.run, keeper.run):
            services.start_soon(self._part, shutdown, part)
        try:
            with shutdown.drain:
                async with trio.open_nursery() as runs:
                    self._fetcher = Fetcher(setup, self._holdings, runner, self._settler, keeper, self._pump, runs)
                    try:
                        with shutdown.fetch:
                            await self._ready(task_status)
                            await self._part(shutdown, self._fetcher.run)
                    finally:
                        self._fetcher.stop()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            # All runs have ended, one way or another. Leases are renewed, and the worker beats, until they are settled.
            shutdown.close()
            await self._settler.wait_idle()
            await self._pump.wait_empty()

    @staticmethod
    async def _part(shutdown: Shutdown, run: Callable[[], Awaitable[None]]) -> None:
        """Run one part of the worker, whose failure is a hard shutdown.

        That is begun before a nursery cancels the runs, so that what handlers make of it is no failure of theirs.
        """
        try:
            await run()
        except Exception:
            shutdown.request(ShutdownMode.HARD)
            raise

    async def _ready(self, task_status: trio.TaskStatus[Worker]) -> None:
        task_status.started(self)
        if self._state.value is not WorkerState.STARTING:
            return  # asked to stop while it was starting
        self._state.value = WorkerState.RUNNING
        _logger.info("worker %s is ready: %s", self.id, ", ".join(self.queues))
        await self._setup.signals.worker_ready.send(self._event())

    def _event(self) -> WorkerEvent:
        return WorkerEvent(worker=self.id, queues=self.queues, occurred_at=self._setup.now())

    def _stopped(self, mode: str) -> WorkerStopped:
        return WorkerStopped(worker=self.id, queues=self.queues, occurred_at=self._setup.now(), mode=mode)


def _in_main_task() -> bool:
    """Whether the current task is the one that `trio.run` was called for."""
    nursery = trio.lowlevel.current_task().parent_nursery
    return nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task()


def _name(mode: ShutdownMode | None) -> str:
    return (mode or ShutdownMode.HARD).name.lower()


def _queues(queue: str | None, queues: Sequence[str] | None) -> tuple[str, ...]:
    if queue is not None and queues is not None:
        raise InvalidOptionError("queues", queues, "give either queue or queues, not both")
    if queues is None:
        return (queue_name("queue", queue if queue is not None else "default"),)
    if isinstance(queues, str):
        raise InvalidOptionError("queues", queues, "must be a sequence of names; for one use queue")
    names = tuple(dict.fromkeys(queue_name("queues", name) for name in queues))
    if not names:
        raise InvalidOptionError("queues", queues, "must name at least one queue")
    return names
