"""What a handler may ask of the runtime while it runs."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar, final

import msgspec
import trio

from ._validate import duration, number
from .codec import ENCODE_ERRORS, encode
from .errors import SerializationError, SoftTimeLimitError, TaskRetryRequest

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, MutableMapping
    from datetime import timedelta
    from typing import Unpack

    from .envelope import Delivery
    from .handle import TaskHandle
    from .task import CallOptions, TaskCall

__all__ = ["ContextSupport", "TaskContext"]

R = TypeVar("R")

_logger: Final = logging.getLogger("stem_trio.task")


@final
class _TaskLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds its `extra` to that of the call; the adapter of the standard library would drop the latter."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs


class ContextSupport(Protocol):
    """What stands behind a context: the worker, or a stand-in where a handler is called by hand."""

    @property
    def worker(self) -> str:
        """Id of the worker."""
        ...

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope of this run, whose deadline is the lease."""
        ...

    @property
    def deadline(self) -> float:
        """When the hard limit ends the run, by `trio.current_time`; infinity without a limit."""
        ...

    @property
    def cancelled(self) -> trio.Event:
        """Set when the handler is asked to come to an end."""
        ...

    @property
    def soft_limit_reached(self) -> trio.Event:
        """Set at the soft limit."""
        ...

    def on_soft_limit(self, scope: trio.CancelScope) -> None:
        """Cancel this scope at the soft limit."""
        ...

    async def renew(self, duration: float | None) -> None:
        """Renew the lease now, for at least `duration` seconds."""
        ...

    async def progress(self, percent: float, data: msgspec.Raw | None) -> None:
        """Tell how far the run is."""
        ...

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        """Enqueue a child."""
        ...

    async def enqueue(self, name: str, args: Mapping[str, Any] | None, options: CallOptions) -> str:
        """Enqueue a child by name."""
        ...


@final
class TaskContext:
    """One run of a task, seen from its handler."""

    __slots__ = ("_delivery", "_logger", "_support")

    def __init__(self, delivery: Delivery, support: ContextSupport) -> None:
        self._delivery = delivery
        self._support = support
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    def __repr__(self) -> str:
        return f"<TaskContext {self.name} {self.id} attempt {self.attempt}>"

    # --- what is being run ----------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Id of the task."""
        return self._delivery.envelope.id

    @property
    def name(self) -> str:
        """Name of the task."""
        return self._delivery.envelope.name

    @property
    def queue(self) -> str:
        """Queue that the task came from."""
        return self._delivery.envelope.queue

    @property
    def attempt(self) -> int:
        """How many runs have failed before this one; 0 in the first."""
        return self._delivery.attempt

    @property
    def deliveries(self) -> int:
        """How often the task was handed to a worker, this time included; more than ``attempt + 1`` after crashes."""
        return self._delivery.deliveries

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the task was enqueued with; read-only."""
        return MappingProxyType(self._delivery.envelope.headers)

    @property
    def meta(self) -> dict[str, Any]:
        """The meta that the task was enqueued with; a new dict at each access."""
        meta: dict[str, Any] = msgspec.json.decode(self._delivery.envelope.meta)
        return meta

    @property
    def parent_id(self) -> str | None:
        """Id of the task whose handler enqueued this one, if one did."""
        return self._delivery.envelope.parent_id

    @property
    def root_id(self) -> str:
        """Id of the first task of this line of tasks; its own id when it is the first."""
        return self._delivery.envelope.root_id or self._delivery.envelope.id

    @property
    def worker(self) -> str:
        """Id of the worker that runs it."""
        return self._support.worker

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``task_id``, ``task_name``, ``attempt``, ``queue`` and ``worker``."""
        if self._logger is None:
            extra = {
                "task_id": self.id,
                "task_name": self.name,
                "attempt": self.attempt,
                "queue": self.queue,
                "worker": self.worker,
            }
            self._logger = _TaskLogger(_logger, extra)
        return self._logger

    # --- how long it may run --------------------------------------------------------------------------------------

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope that the handler runs in; its deadline is the end of the lease, and moves with each renewal."""
        return self._support.cancel_scope

    @property
    def deadline(self) -> float:
        """When the hard time limit will end this run, by `trio.current_time`; infinity when there is no limit."""
        return self._support.deadline

    @property
    def cancelled(self) -> trio.Event:
        """Set when the worker shuts down and asks its handlers to come to an end.

        A handler that returns soon after has its result recorded; one that is still at work when the grace period
        ends is cancelled, and its task given back.
        """
        return self._support.cancelled

    @property
    def soft_limit_reached(self) -> trio.Event:
        """Set when the soft time limit passes; the handler goes on."""
        return self._support.soft_limit_reached

    @contextmanager
    def raise_at_soft_limit(self) -> Generator[None, None, None]:
        """A block that is cancelled when the soft time limit passes, and then raises.

        Use it around the work that may be cut short, with the cleanup outside::

            try:
                with context.raise_at_soft_limit():
                    await work()
            except SoftTimeLimitError:
                await keep_what_is_done()

        Raises:
            SoftTimeLimitError: the limit passed before the block had ended, or before it began.
        """
        scope = trio.CancelScope()
        self._support.on_soft_limit(scope)
        with scope:
            yield
        if scope.cancelled_caught:
            raise SoftTimeLimitError(f"task {self.name!r} reached its soft time limit")

    async def heartbeat(self) -> None:
        """Renew the lease now. The worker does so by itself; call it before blocking the loop for long.

        Cancellation: the lease may or may not have been renewed.

        Raises:
            LeaseLostError: the lease has ended; this run is being cancelled.
        """
        await self._support.renew(None)

    async def extend_lease(self, by: float | timedelta) -> None:
        """Let the lease last at least `by` seconds from now, and as long again after each renewal.

        Cancellation: the lease may or may not have been extended.

        Raises:
            InvalidOptionError: `by` is not a positive duration.
            LeaseLostError: the lease has ended; this run is being cancelled.
        """
        await self._support.renew(duration("by", by, positive=True))

    # --- what it tells --------------------------------------------------------------------------------------------

    async def progress(self, percent: float, data: object = None) -> None:
        """Tell how far the run is; anybody can read it in the task's status while it runs.

        The newest report is written soon, older ones that it overtakes are not.

        Args:
            percent: 0 to 100.
            data: any value that JSON can hold.

        Cancellation: the report may still be written.

        Raises:
            InvalidOptionError: percent is out of its range.
            SerializationError: data cannot be represented as JSON.
        """
        percent = number("percent", percent, minimum=0.0, maximum=100.0)
        try:
            raw = None if data is None else msgspec.Raw(encode(data))
        except ENCODE_ERRORS as error:
            raise SerializationError("data", str(error)) from error
        await self._support.progress(percent, raw)

    def retry(self, *, after: float | timedelta | None = None, reason: str | None = None) -> NoReturn:
        """End this run and ask for another, as long as `max_retries` allows.

        Args:
            after: seconds (or timedelta) to wait; by default what the retry policy or strategy says.
            reason: for the status and the signal.

        Raises:
            TaskRetryRequest: always.
            InvalidOptionError: `after` is not a duration.
        """
        raise TaskRetryRequest(None if after is None else duration("after", after), reason)

    # --- children -------------------------------------------------------------------------------------------------

    async def enqueue(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> str:
        """Enqueue another task by name, with this one as its parent.

        It gets this task's lineage and trace headers (``traceparent``, ``tracestate``, ``baggage``) and nothing else
        of it. Arguments, options, errors and cancellation are those of `Stem.enqueue`.

        Returns:
            Id of the new task.
        """
        return await self._support.enqueue(name, args, options)

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        """Enqueue a bound call with this task as its parent; what ``some_task.enqueue(context, ...)`` does."""
        return await self._support.submit(call)
