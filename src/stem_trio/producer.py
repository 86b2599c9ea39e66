"""The producer: checks tasks, publishes them, and answers what became of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, final, overload

import msgspec
import trio

from . import signals as signals_module
from ._bounded import bounded
from ._validate import duration, integer
from .clock import SystemClock, WallClock, to_datetime
from .control import CONTROL_CHANNEL, RevokeTasks, encode_control
from .envelope import WIRE_VERSION, DeadLetter, Envelope
from .errors import (
    ConfigurationError,
    InvalidOptionError,
    InvalidScheduleError,
    PayloadTooLargeError,
    ResultDecodeError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnknownTaskError,
    WaitTimeoutError,
)
from .events import PublishEvent, TaskRevoked
from .handle import TaskHandle
from .ids import new_task_id
from .settlement import purged_status, replayed_status, submitted_status
from .status import TaskResult, TaskState, TaskStatus
from .task import CallOptions, TaskCall, TaskDefinition, TaskRegistry, TaskSource, make_call

if TYPE_CHECKING:
    from typing import Unpack

    from .abc import Broker, ResultBackend
    from .signals import StemSignals
    from .signing import PayloadSigner

__all__ = ["DEFAULT_MAX_PAYLOAD_SIZE", "Lineage", "Stem"]

R = TypeVar("R")
T = TypeVar("T")

DEFAULT_MAX_PAYLOAD_SIZE: Final = 256 * 1024
_MAX_DELAY: Final = 10 * 365 * 86_400.0
_PURGE_BATCH: Final = 500
_NO_META: Final = b"{}"
_MAX_FRAME: Final = 8 * 1024
"""Bytes that an encoded envelope without headers has at most beside arguments and meta: five names of 200 characters
in UTF-8, numbers, a signature, and field names."""

_logger = logging.getLogger(__name__)


@final
class Lineage(msgspec.Struct, frozen=True):
    """What a child inherits of the task that enqueues it."""

    parent_id: str
    parent_attempt: int
    root_id: str
    headers: Mapping[str, str]


@final
class Stem:
    """Enqueues tasks into a broker, and reads results from a backend. One serves a whole program, for its whole life.

    Args:
        broker: where tasks go; open.
        backend: where statuses are; open. None when nobody asks what becomes of the tasks.
        tasks: the tasks that may be enqueued; modules and dotted names too, see `TaskRegistry.register_all`.
        registry: an existing registry to use; `tasks` are added to it.
        signals: whose listeners to call; by default the process-wide ones.
        clock: the wall clock.
        max_payload_size: greatest size of an encoded task in bytes.
        store_timeout: seconds that one call to a store may take.
        signer: signs each task. Default None: tasks are not signed.

    Raises:
        DuplicateTaskError: two tasks have the same name.
        RegistrationError: one of the tasks is no task.
        InvalidOptionError: an option is out of its range.
    """

    def __init__(
        self,
        broker: Broker,
        backend: ResultBackend | None = None,
        *,
        tasks: Iterable[TaskSource] = (),
        registry: TaskRegistry | None = None,
        signals: StemSignals | None = None,
        clock: WallClock | None = None,
        max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE,
        store_timeout: float | timedelta = 10.0,
        signer: PayloadSigner | None = None,
    ) -> None:
        self.broker: Final = broker
        self.backend: Final = backend
        self._joint = broker.join(backend) if backend is not None else None
        self._templates: dict[TaskDefinition, Envelope] = {}
        self.registry: Final = registry if registry is not None else TaskRegistry()
        self.registry.register_all(tasks)
        self.signals: Final = signals if signals is not None else signals_module.default
        self.clock: Final[WallClock] = clock if clock is not None else SystemClock()
        self._max_payload_size = integer("max_payload_size", max_payload_size, minimum=1)
        self._store_timeout = duration("store_timeout", store_timeout, positive=True)
        self._signer = signer

    # --- enqueueing -----------------------------------------------------------------------------------------------

    def call(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> TaskCall[Any]:
        """A call to a task by its name, checked and encoded, for `enqueue_many` or `submit`.

        Args:
            name: name of a registered task.
            args: its arguments by name.
            options: see `CallOptions`.

        Raises:
            UnregisteredTaskError: no task of this name is registered.
            ArgumentsError: the arguments do not fit the task's signature.
            InvalidOptionError: an option is not legal.
            SerializationError: headers or meta cannot be represented.
        """
        definition = self.registry.resolve(name)
        return make_call(definition, definition.encode(args if args is not None else {}), options)

    async def enqueue(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> str:
        """Enqueue a task by its name.

        Args:
            name: name of a registered task.
            args: its arguments by name.
            options: see `CallOptions`.

        Returns:
            Id of the task, once the broker holds it.

        Raises:
            UnregisteredTaskError: no task of this name is registered.
            ArgumentsError: the arguments do not fit the task's signature; the error names the argument.
            InvalidOptionError: an option is not legal.
            InvalidScheduleError: delay, eta and expires do not make sense.
            SerializationError: headers or meta cannot be represented.
            PayloadTooLargeError: the encoded task is too large.
            SigningError: the signer has keys to verify with only.
            StoreUnavailableError: the broker cannot be reached, or did not answer in time; `maybe_applied` tells
                whether the task may be enqueued all the same. Repeating with the same `task_id` is safe.

        Cancellation: the task may or may not have been enqueued.
        """
        return (await self.submit(self.call(name, args, **options))).id

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        """Enqueue one bound call. Errors and cancellation as `enqueue`."""
        if self._joint is None or self.signals.before_task_publish or self.signals.after_task_publish:
            return (await self.publish([call]))[0]
        # What `publish` comes to for a single task that nobody listens to.
        now = self.clock.now()
        envelope, delay = self._envelope(call, now, None)
        entries = [(envelope, submitted_status(envelope, now=now, delay=delay))]
        if self._joint.answers_within <= self._store_timeout:
            [created] = await self._joint.publish(entries, delay=delay)
        else:
            [created] = await self._bounded("publish", partial(self._joint.publish, entries, delay=delay))
        return TaskHandle(self, envelope.id, call.definition, created=created or call.task_id is None)

    async def enqueue_many(self, calls: Iterable[TaskCall[Any]]) -> list[str]:
        """Enqueue bound calls together, in one round trip for each distinct delay.

        All of them are checked before the first is written. Errors and cancellation as `enqueue`.

        Returns:
            Their ids, in their order.
        """
        return [handle.id for handle in await self.publish(list(calls))]

    async def publish(self, calls: Sequence[TaskCall[R]], lineage: Lineage | None = None) -> list[TaskHandle[R]]:
        """Enqueue bound calls together, as children of a task if a lineage is given.

        What `submit` and `enqueue_many` are made of. Errors and cancellation as `enqueue`.
        """
        now = self.clock.now()
        # All of them are checked before a store is asked anything.
        planned = [self._envelope(call, now, lineage) for call in calls]
        known = await self._finished_ids(calls)
        handles: list[TaskHandle[R]] = []
        by_delay: dict[float, list[int]] = {}
        for position, (call, (envelope, delay)) in enumerate(zip(calls, planned, strict=True)):
            wanted = envelope.id not in known
            handles.append(TaskHandle(self, envelope.id, call.definition, created=wanted))
            if wanted:
                by_delay.setdefault(delay, []).append(position)
        published = False
        for delay, positions in by_delay.items():
            batch = [planned[position][0] for position in positions]
            # An id that was made just now can be known only of an attempt of this very call that had to be repeated.
            fresh = [calls[position].task_id is None for position in positions]
            try:
                accepted = await self._publish(batch, fresh, delay)
            except StoreUnavailableError as error:
                # Those with another delay are in their queues, whatever the broker says of these.
                error.maybe_applied = error.maybe_applied or published
                raise
            published = True
            for position, created in zip(positions, accepted, strict=True):
                handles[position].created = created
        return handles

    async def _finished_ids(self, calls: Sequence[TaskCall[Any]]) -> set[str]:
        """Which of the ids that callers chose belong to tasks that are over; the broker knows of the others."""
        found: set[str] = set()
        if self.backend is not None and self._joint is None:  # a joint store sees to it itself
            chosen = [call.task_id for call in calls if call.task_id is not None]
            for task_id in chosen:
                status = await self._bounded("get", partial(self.backend.get, task_id))
                if status is not None and status.state.terminal:
                    found.add(task_id)
        return found

    async def _publish(self, envelopes: list[Envelope], fresh: list[bool], delay: float) -> list[bool]:
        signals = self.signals
        if signals.before_task_publish:
            for envelope in envelopes:
                await signals.before_task_publish.send(self._publish_event(envelope, delay))
        if self._joint is not None:
            now = self.clock.now()
            entries = [(envelope, submitted_status(envelope, now=now, delay=delay)) for envelope in envelopes]
            put = partial(self._joint.publish, entries, delay=delay)
        else:
            put = partial(self.broker.publish, envelopes, delay=delay)
        created = await self._bounded("publish", put)
        new = envelopes
        if not all(created):
            created = [accepted or own for accepted, own in zip(created, fresh, strict=True)]
            new = [envelope for envelope, accepted in zip(envelopes, created, strict=True) if accepted]
        if self.backend is not None and self._joint is None and new:
            # The tasks are accepted: from here on nothing may fail them. A worker writes a newer status in any case,
            # and the version keeps this one from replacing it.
            now = self.clock.now()
            statuses = [submitted_status(envelope, now=now, delay=delay) for envelope in new]
            try:
                await self._bounded("record", partial(self.backend.record, statuses))
            except StoreError as error:
                _logger.warning("enqueued %d task(s), but could not record that: %s", len(new), error)
        if signals.after_task_publish:
            for envelope in new:
                await signals.after_task_publish.send(self._publish_event(envelope, delay))
        return created

    def _publish_event(self, envelope: Envelope, delay: float) -> PublishEvent:
        return PublishEvent(envelope=envelope, delay=delay, occurred_at=to_datetime(self.clock.now()))

    async def _bounded(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        return await bounded(operation, self._store_timeout, call)

    def _envelope(self, call: TaskCall[Any], now: float, lineage: Lineage | None) -> tuple[Envelope, float]:
        options = call.options
        delay = 0.0 if call.delay is None and call.eta is None else _delay(call, now)
        expires_at = None
        if call.expires_at is not None:
            expires_at = _moment("expires", call.expires_at)
        elif options.expires is not None:
            expires_at = now + options.expires
        if expires_at is not None and expires_at <= now + delay:
            raise InvalidScheduleError("expires", "the task would expire before it may start")
        headers = dict(call.headers) if lineage is None else {**lineage.headers, **call.headers}
        fields: dict[str, Any] = {
            "id": call.task_id if call.task_id is not None else new_task_id(),
            "created_at": now,
            "args": msgspec.Raw(call.args),
            "headers": headers,
        }
        if call.meta != _NO_META:
            fields["meta"] = msgspec.Raw(call.meta)
        if expires_at is not None:
            fields["expires_at"] = expires_at
        if lineage is not None:
            fields["parent_id"] = lineage.parent_id
            fields["parent_attempt"] = lineage.parent_attempt
            fields["root_id"] = lineage.root_id
        envelope = msgspec.structs.replace(self._template(call), **fields)
        if self._signer is not None:
            envelope = self._signer.sign(envelope, due_at=now + delay if delay else None)
        # Measuring is left out where the rest, whose names and ids are bounded, cannot make it too large.
        if len(call.args) + len(call.meta) + _MAX_FRAME > self._max_payload_size or headers:
            size = len(envelope.encode())
            if size > self._max_payload_size:
                raise PayloadTooLargeError(envelope.name, size, self._max_payload_size)
        return envelope, delay

    def _template(self, call: TaskCall[Any]) -> Envelope:
        """What all calls of a task have in common; made once, unless a call has options of its own."""
        definition, options = call.definition, call.options
        template = self._templates.get(definition) if options is definition.effective else None
        if template is None:
            template = Envelope(
                v=WIRE_VERSION,
                id="",
                name=definition.name,
                queue=options.queue,
                created_at=0.0,
                priority=options.priority,
                max_retries=options.max_retries,
                backoff=_backoff(call),
                visibility_timeout=options.visibility_timeout,
                soft_time_limit=options.soft_time_limit,
                hard_time_limit=options.hard_time_limit,
                max_strikes=options.max_strikes,
                result_ttl=options.result_ttl,
                ignore_result=options.ignore_result,
            )
            if options is definition.effective:
                self._templates[definition] = template
        return template

    # --- results --------------------------------------------------------------------------------------------------

    async def status(self, task: str | TaskHandle[Any]) -> TaskStatus | None:
        """What is known of a task; None when nothing is.

        Raises:
            ConfigurationError: there is no result backend.
            StoreUnavailableError: the backend cannot be reached, or did not answer in time.

        Cancellation: changes nothing.
        """
        return await self._bounded("get", partial(self._results().get, str(task)))

    @overload
    async def wait_for_task(self, task: TaskHandle[R], timeout: float | timedelta | None = None) -> TaskResult[R]: ...
    @overload
    async def wait_for_task(self, task: str, timeout: float | timedelta | None = None) -> TaskResult[Any]: ...
    async def wait_for_task(
        self, task: str | TaskHandle[Any], timeout: float | timedelta | None = None
    ) -> TaskResult[Any]:
        """Wait until a task is over, however it ends, wherever it runs.

        Args:
            task: an id or a handle.
            timeout: seconds (or timedelta); None waits for ever, 0 just looks.

        Returns:
            How it ended. The value is decoded by the handle's task, or the registered one, if there is one.

        Raises:
            UnknownTaskError: nothing is known of the task.
            WaitTimeoutError: it is not over in time; holds the last status seen.
            ResultDecodeError: its result is not of the annotated type.
            ConfigurationError: there is no result backend.
            StoreUnavailableError: the backend cannot be reached, or did not answer in time.

        Cancellation: nothing happens to the task.
        """
        task_id = str(task)
        seconds = math.inf if timeout is None else duration("timeout", timeout)
        backend = self._results()
        status: TaskStatus | None = None
        # With no time to wait the question still is what the state is, and the answer takes the store's time.
        with trio.move_on_after(seconds or math.inf), trio.move_on_after(self._store_timeout) as looking:
            # Watch first, read then: an end between the two is seen by one or the other.
            async with backend.watch(task_id) as watch:
                status = await backend.get(task_id)
                looking.deadline = math.inf
                if status is None:
                    raise UnknownTaskError(task_id)
                while not status.state.terminal and seconds > 0:
                    status = await watch.changed()
        if looking.cancelled_caught:
            raise StoreTimeoutError("get", self._store_timeout)
        if status is None or not status.state.terminal:
            raise WaitTimeoutError(task_id, seconds, status)
        definition = task.definition if isinstance(task, TaskHandle) else self.registry.get(status.name)
        return _result(status, definition)

    # --- intervening ----------------------------------------------------------------------------------------------

    async def revoke(self, task: str | TaskHandle[Any], *, reason: str | None = None) -> bool:
        """See to it that a task never starts again, and cancel it where it runs.

        A waiting task is ended by the next worker that claims from its queue; one that runs is cancelled at once.

        Args:
            task: an id or a handle.
            reason: for its status.

        Returns:
            False when it was too late: the task is over, or just being finished.

        Raises:
            UnknownTaskError: nothing is known of the task.
            ConfigurationError: there is no result backend to find the task's queue in.
            StoreUnavailableError: a store cannot be reached, or did not answer in time.

        Cancellation: the task may or may not have been revoked; repeating it is safe.
        """
        status = await self.status(task)
        if status is None:
            raise UnknownTaskError(str(task))
        if status.state.terminal:
            return False
        reason = reason or ""
        [marked] = await self._bounded("revoke", partial(self.broker.revoke, status.queue, [status.id], reason=reason))
        if marked:
            message = encode_control(RevokeTasks((status.id,), reason))
            await self._bounded("broadcast", partial(self.broker.broadcast, CONTROL_CHANNEL, message))
        return marked

    async def purge(self, queue: str) -> int:
        """Remove every task that waits in a queue, and record each as revoked with reason ``purged``.

        Recorded first, removed then: a task that a worker claims in between runs, and its newer status stands.

        Returns:
            How many were removed.

        Raises:
            StoreUnavailableError: a store cannot be reached, or did not answer in time.

        Cancellation: some tasks may have been removed; repeating it is safe.
        """
        total = 0
        while True:
            waiting = await self._bounded("peek", partial(self.broker.peek, queue, limit=_PURGE_BATCH))
            if not waiting:
                return total
            now = self.clock.now()
            if self.backend is not None:
                statuses = [purged_status(task.envelope, now=now, deliveries=task.deliveries) for task in waiting]
                await self._bounded("record", partial(self.backend.record, statuses))
            ids = [task.envelope.id for task in waiting]
            total += await self._bounded("purge", partial(self.broker.purge, queue, ids))
            if self.signals.task_revoked:
                for task in waiting:
                    event = TaskRevoked(
                        envelope=task.envelope,
                        attempt=task.attempt,
                        deliveries=task.deliveries,
                        worker="",
                        occurred_at=to_datetime(now),
                        reason="purged",
                    )
                    await self.signals.task_revoked.send(event)

    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float | timedelta = 0.0
    ) -> list[DeadLetter | None]:
        """Put dead letters back into their queue, with their attempts forgotten, and record them as queued.

        Args:
            queue: the queue.
            task_ids: ids of dead letters; see `Broker.list_dead_letters`.
            delay: seconds (or timedelta) until they may start.

        Returns:
            One entry for each id: what was put back, or None where there is no such dead letter.

        Raises:
            StoreUnavailableError: a store cannot be reached, or did not answer in time.

        Cancellation: some may have been put back; repeating it is safe.
        """
        seconds = duration("delay", delay)
        replayed = await self._bounded(
            "replay", partial(self.broker.replay_dead_letters, queue, task_ids, delay=seconds)
        )
        letters = [letter for letter in replayed if letter is not None]
        if self.backend is not None and letters:
            now = self.clock.now()
            statuses = [
                replayed_status(letter.envelope, now=now, delay=seconds, deliveries=letter.deliveries)
                for letter in letters
            ]
            # They are back in their queue: as after publishing, nothing may fail them now.
            try:
                await self._bounded("record", partial(self.backend.record, statuses))
            except StoreError as error:
                _logger.warning("replayed %d task(s), but could not record that: %s", len(letters), error)
        return replayed

    def _results(self) -> ResultBackend:
        if self.backend is None:
            raise ConfigurationError("this producer has no result backend; give it one with backend=")
        return self.backend


def _delay(call: TaskCall[Any], now: float) -> float:
    if call.delay is not None and call.eta is not None:
        raise InvalidScheduleError("eta", "give either delay or eta, not both")
    seconds = 0.0
    if call.eta is not None:
        # A moment that has passed means now: clocks differ, and a caller computes its moment before it calls.
        seconds = max(0.0, _moment("eta", call.eta) - now)
    elif call.delay is not None:
        try:
            seconds = duration("delay", call.delay)
        except InvalidOptionError as error:
            raise InvalidScheduleError("delay", str(error)) from None
    if seconds > _MAX_DELAY:
        raise InvalidScheduleError(
            "eta" if call.eta is not None else "delay", "lies more than ten years ahead; durations are in seconds"
        )
    return seconds


def _moment(option: str, value: object) -> float:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidScheduleError(option, f"must be a datetime with a time zone, not {value!r}")
    return value.timestamp()


def _backoff(call: TaskCall[Any]) -> Any:
    # The task's own policy is known to the worker; only what a call puts in its place has to travel.
    policy = call.options.retry_policy
    return policy.backoff if policy is not None and policy is not call.definition.effective.retry_policy else None


def _result(status: TaskStatus, definition: TaskDefinition | None) -> TaskResult[Any]:
    value = None
    if status.state is TaskState.SUCCEEDED and status.value is not None:
        try:
            value = msgspec.json.decode(status.value) if definition is None else definition.decode_result(status.value)
        except msgspec.DecodeError as error:
            raise ResultDecodeError(status.id, str(error)) from error
    return TaskResult(
        task_id=status.id,
        state=status.state,
        value=value,
        error=status.error,
        attempt=status.attempt,
        reason=status.reason,
    )
