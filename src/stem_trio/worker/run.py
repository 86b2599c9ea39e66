"""Runs one delivery: checks it, calls its handler within its scopes, and says how that ended."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Mapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import msgspec
import trio

from ..codec import ENCODE_ERRORS, encode
from ..context import TaskContext
from ..errors import ArgumentsError, HardTimeLimitError, SignatureInvalidError, UnregisteredTaskError
from ..events import TaskPrerun, TaskReceived
from ..outcome import DeadLetterReason, Expired, Failed, Interrupted, LeaseLost, Outcome, Revoked, Succeeded
from ..producer import Lineage
from ..status import Progress
from .failure import FailurePolicy, describe
from .held import Cause

if TYPE_CHECKING:
    from ..handle import TaskHandle
    from ..task import CallOptions, TaskCall
    from .held import Held
    from .lease import LeaseKeeper
    from .limits import SoftLimits
    from .record import StatusRecorder
    from .setup import Setup

__all__ = ["INTERRUPTED", "Runner"]

R = TypeVar("R")

INTERRUPTED: Final = Interrupted()
_LEASE_LOST: Final = LeaseLost()
_TRACE_HEADERS: Final[tuple[str, ...]] = ("traceparent", "tracestate", "baggage")

_logger = logging.getLogger(__name__)


@final
class Runner:
    """Runs deliveries. What it calls of the handler is bounded by the run's own scope, whose deadline is the lease.

    Args:
        setup: facts of the worker.
        recorder: where running statuses and progress go.
        keeper: renews leases on behalf of handlers.
        soft_limits: tells of soft limits.
        drain: the scope whose cancellation ends all runs.
    """

    def __init__(
        self,
        setup: Setup,
        recorder: StatusRecorder,
        keeper: LeaseKeeper,
        soft_limits: SoftLimits,
        drain: trio.CancelScope,
    ) -> None:
        self._setup = setup
        self._recorder = recorder
        self._keeper = keeper
        self._soft_limits = soft_limits
        self._drain = drain
        self._failures = FailurePolicy(setup.retry_strategy)
        # One thread for each slot. Threads given up at a lost lease keep theirs until they end.
        self._threads = trio.CapacityLimiter(setup.concurrency)

    async def run(self, held: Held) -> Outcome:
        """Run a delivery to its end.

        Cancellation: the handler is cancelled (one in a thread is waited for); the delivery is to be given back.
        """
        outcome: Outcome | None = self._refuse(held)
        if outcome is not None:
            return outcome
        with held.scope:
            outcome = await self._start(held)
        if outcome is None:
            outcome = self._cancelled(held)
        return outcome

    # --- before the handler ---------------------------------------------------------------------------------------

    def _refuse(self, held: Held) -> Outcome | None:
        """The outcome of a delivery that must not reach a handler; None for one that may."""
        delivery = held.delivery
        envelope = delivery.envelope
        # A lease that is lost already is left to the run's scope, which ends by it before the handler can begin.
        if held.cause is Cause.REVOKED:
            return Revoked(held.revoke_reason)
        if delivery.revoked is not None:
            return Revoked(delivery.revoked)
        if delivery.unreadable is not None:
            unreadable = UnreadableTask(f"its message is no envelope that this version knows: {delivery.unreadable}")
            return Failed(describe(unreadable, retryable=False), reason=str(DeadLetterReason.UNREADABLE))
        # Next, before anything that the envelope says is believed.
        signer = self._setup.signer
        if signer is not None:
            try:
                signer.verify_delivery(delivery)
            except SignatureInvalidError as error:
                _logger.warning("refused a task: %s", error)
                return Failed(describe(error, retryable=False), reason=str(DeadLetterReason.SIGNATURE_INVALID))
        if envelope.expires_at is not None and self._claim_age(held) + delivery.claimed_at >= envelope.expires_at:
            return Expired()
        if delivery.strikes >= envelope.max_strikes:
            problem = PoisonedTask(f"{delivery.strikes} hand-outs in a row ended without an outcome")
            return Failed(describe(problem, retryable=False), reason=str(DeadLetterReason.POISON))
        held.definition = self._setup.registry.get(envelope.name)
        if held.definition is None:
            unknown = UnregisteredTaskError(envelope.name, (known.name for known in self._setup.registry))
            return Failed(describe(unknown, retryable=False), reason=str(DeadLetterReason.UNREGISTERED_TASK))
        return None

    @staticmethod
    def _claim_age(held: Held) -> float:
        # The store said what time it was at the hand-out; what has passed since is this process's to measure.
        lease = held.delivery.lease
        return max(0.0, trio.current_time() - (lease.deadline - lease.duration))

    async def _start(self, held: Held) -> Outcome | None:
        definition = held.definition
        assert definition is not None, "refused before"
        envelope = held.delivery.envelope
        # A handler may do much before it first waits, or run in a thread: none is started in a worker that is ending.
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            arguments = definition.decode(envelope.args)
        except ArgumentsError as error:
            return Failed(describe(error, retryable=False), reason=str(DeadLetterReason.INVALID_ARGUMENTS))
        setup = self._setup
        context = None
        if definition.takes_context or setup.signals.task_prerun:
            context = TaskContext(held.delivery, _Support(self._setup, self._keeper, self._recorder, held))
        held.thread = definition.isolation == "thread"
        if setup.signals.task_received or setup.signals.task_prerun:
            await self._announce(held, context)
            if held.scope.cancel_called:
                return None  # while listeners were at work; a handler that never waits would not notice
        held.started_at = setup.clock.now()
        self._recorder.put(held)
        if envelope.soft_time_limit is not None:
            self._soft_limits.add(held, envelope.soft_time_limit)
        if envelope.hard_time_limit is None:
            return await self._call(held, context, arguments)
        held.hard_deadline = trio.current_time() + envelope.hard_time_limit
        outcome: Outcome | None = None
        with trio.CancelScope(deadline=held.hard_deadline) as limit:
            outcome = await self._call(held, context, arguments, limit)
        if limit.cancelled_caught:
            return self._timed_out(held)
        return outcome

    async def _announce(self, held: Held, context: TaskContext | None) -> None:
        signals = self._setup.signals
        delivery = held.delivery
        worker = self._setup.worker_id
        if signals.task_received:
            await signals.task_received.send(
                TaskReceived(
                    envelope=delivery.envelope,
                    attempt=delivery.attempt,
                    deliveries=delivery.deliveries,
                    worker=worker,
                    occurred_at=self._setup.now(),
                )
            )
        if signals.task_prerun and context is not None:
            await signals.task_prerun.send(
                TaskPrerun(
                    envelope=delivery.envelope,
                    attempt=delivery.attempt,
                    deliveries=delivery.deliveries,
                    worker=worker,
                    occurred_at=self._setup.now(),
                    context=context,
                )
            )

    # --- the handler ----------------------------------------------------------------------------------------------

    async def _call(
        self, held: Held, context: TaskContext | None, arguments: Any, limit: trio.CancelScope | None = None
    ) -> Outcome | None:
        """Call the handler. None when it was cancelled, and the scopes around tell why."""
        definition = held.definition
        assert definition is not None, "refused before"
        try:
            if held.thread:
                value = await self._in_thread(held, context, arguments)
            else:
                value = definition.call(context, arguments)
                # The test of the exact type is for speed: it spares every task the abstract one.
                if type(value) is CoroutineType or isinstance(value, Awaitable):
                    value = await value
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - what a handler lets out is its failure, SystemExit included
            return self._raised(held, error, limit)
        if held.delivery.envelope.ignore_result:
            return Succeeded()
        try:
            return Succeeded(msgspec.Raw(encode(value)))
        except ENCODE_ERRORS as error:
            reason = str(DeadLetterReason.UNSERIALIZABLE_RESULT)
            return Failed(describe(error, retryable=False), reason=reason)

    async def _in_thread(self, held: Held, context: TaskContext | None, arguments: Any) -> Any:
        """Call a sync handler in a thread.

        A thread cannot be cancelled. So a shutdown waits for it, as long as there is time: the run's scope is shielded
        from outside, and ends by its own deadline, which is the end of the lease or of the worker. Then, or at the
        hard limit, the thread is left to itself, and whatever it returns is refused.
        """
        definition = held.definition
        assert definition is not None, "refused before"
        # Places are taken by threads that were given up, too. A call that waits for one has not begun; no shield yet.
        place = _ThreadPlace(self._threads)
        await place.wait_free()
        held.scope.shield = True
        try:
            return await trio.to_thread.run_sync(
                definition.call,
                context,
                arguments,
                abandon_on_cancel=True,
                limiter=cast("trio.CapacityLimiter", place),  # anything with these two methods will do, says trio
            )
        except trio.Cancelled:
            # The shield stays on, so that the scopes of the run itself tell why, whatever is cancelled around them.
            if place.taken:
                _logger.warning(
                    "task %s (%s) was given up, but runs on in its thread; its outcome will be refused",
                    definition.name,
                    held.id,
                )
            raise
        finally:
            place.leave_untaken()

    def _raised(self, held: Held, error: BaseException, limit: trio.CancelScope | None) -> Outcome | None:
        """What it means that the handler raised something; raises it again where it is not the handler's own."""
        if isinstance(error, BaseExceptionGroup):
            interrupt, _ = error.split(KeyboardInterrupt)
            if interrupt is not None:
                raise interrupt
        cancelled_now = trio.current_effective_deadline() == -math.inf
        if cancelled_now:
            if isinstance(error, trio.Cancelled):
                raise error
            if isinstance(error, BaseExceptionGroup):
                cancelled, _ = error.split(trio.Cancelled)
                if cancelled is not None:
                    # A nursery was cancelled, and some of its tasks failed over it.
                    raise cancelled
        # Any other Cancelled is one that the handler has kept from elsewhere: no scope of this worker would take it.
        # While it is being cancelled, what a handler raises comes of that, and the reason for it is what counts.
        if held.scope.cancel_called:
            return None
        if self._drain.cancel_called and not held.thread:
            return INTERRUPTED
        if limit is not None and limit.cancel_called:
            return self._timed_out(held)
        if cancelled_now and not held.thread:
            return INTERRUPTED  # the worker ends with an error, without having been asked to
        return self._failures.failed(held, error)

    # --- after a cancellation -------------------------------------------------------------------------------------

    def _cancelled(self, held: Held) -> Outcome:
        """How a run ended whose own scope was cancelled."""
        if held.cause is Cause.REVOKED:
            return Revoked(held.revoke_reason)
        if held.cause is Cause.LEASE_LOST or trio.current_time() >= held.deadline:
            return _LEASE_LOST
        if held.thread and trio.current_time() >= held.scope.deadline:
            # The worker's own end, up to which it waits for a thread. Given back now, the task could start elsewhere
            # beside the thread: it is left to come back when the lease runs out, or the process ends.
            return _LEASE_LOST
        return self._failures.failed(held, CancelledByHandler("the handler cancelled its own scope"))

    def _timed_out(self, held: Held) -> Outcome:
        limit = held.delivery.envelope.hard_time_limit
        return self._failures.timed_out(held, HardTimeLimitError(f"the hard time limit of {limit:g} s has passed"))


@final
class _ThreadPlace:
    """One place among the threads: waited for first, then held from the start of the thread to its end.

    `trio.to_thread.run_sync` takes it for a limiter; it gives the place back when the thread ends, however long after
    the call was given up.
    """

    def __init__(self, places: trio.CapacityLimiter) -> None:
        self._places = places
        self.taken = False

    async def wait_free(self) -> None:
        """Wait for the place, and keep it for the thread."""
        await self._places.acquire_on_behalf_of(self)

    def leave_untaken(self) -> None:
        """Give it back, if the thread was not even started."""
        if not self.taken:
            self._places.release_on_behalf_of(self)

    async def acquire_on_behalf_of(self, borrower: object) -> None:  # noqa: ARG002 - there is only one
        """The thread is started."""
        self.taken = True

    def release_on_behalf_of(self, borrower: object) -> None:  # noqa: ARG002 - there is only one
        """The thread has ended."""
        self._places.release_on_behalf_of(self)


@final
class PoisonedTask(Exception):  # noqa: N818 - it names, in a status, why a task is not run
    """A task that has ended too many workers."""


@final
class UnreadableTask(Exception):  # noqa: N818 - it names, in a status, why a task is not run
    """A task whose message is broken, or of a newer version of this package."""


@final
class CancelledByHandler(Exception):  # noqa: N818 - it names, in a status, how a run ended
    """A handler cancelled ``context.cancel_scope``."""


@final
class _Support:
    """What the worker does for a `TaskContext`."""

    __slots__ = ("_held", "_keeper", "_recorder", "_setup")

    def __init__(self, setup: Setup, keeper: LeaseKeeper, recorder: StatusRecorder, held: Held) -> None:
        self._setup = setup
        self._keeper = keeper
        self._recorder = recorder
        self._held = held

    @property
    def worker(self) -> str:
        return self._setup.worker_id

    @property
    def cancel_scope(self) -> trio.CancelScope:
        return self._held.scope

    @property
    def deadline(self) -> float:
        return self._held.hard_deadline

    @property
    def cancelled(self) -> trio.Event:
        return self._held.cancelled

    @property
    def soft_limit_reached(self) -> trio.Event:
        return self._held.soft_limit_reached

    def on_soft_limit(self, scope: trio.CancelScope) -> None:
        self._held.on_soft_limit(scope)

    async def renew(self, duration: float | None) -> None:
        await self._keeper.renew_now(self._held, duration)

    async def progress(self, percent: float, data: msgspec.Raw | None) -> None:
        self._held.progress = Progress(percent=percent, at=self._setup.clock.now(), data=data)
        self._recorder.put(self._held)
        await trio.lowlevel.checkpoint()

    def _lineage(self) -> Lineage:
        envelope = self._held.delivery.envelope
        headers = {name: envelope.headers[name] for name in _TRACE_HEADERS if name in envelope.headers}
        return Lineage(envelope.id, self._held.delivery.attempt, envelope.root_id or envelope.id, headers)

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        return (await self._setup.stem.publish([call], self._lineage()))[0]

    async def enqueue(self, name: str, args: Mapping[str, Any] | None, options: CallOptions) -> str:
        stem = self._setup.stem
        return (await stem.publish([stem.call(name, args, **options)], self._lineage()))[0].id
