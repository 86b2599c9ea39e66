"""Lifecycle hooks: functions that are called, in order, when something happens.

Signals belong to a `StemSignals`; a producer or worker that is given none uses `default`, which is shared by the
process. A signal that nobody listens to costs one truth test.

Listeners never change what happens to a task: their errors are logged and reported, and one that hangs is given up
after `StemSignals.listener_timeout`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio

from . import events
from ._validate import duration, integer
from .errors import InvalidOptionError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Signal", "SignalConnection", "StemSignals", "default"]

E = TypeVar("E")
Listener = Callable[[E], Awaitable[object] | object]
ErrorReport = Callable[[str, Exception], object]

_logger = logging.getLogger(__name__)


@final
class SignalConnection(Generic[E]):
    """A listener's place at a signal; calling it calls the listener, so that `Signal.connect` can decorate.

    Attributes:
        handler: the listener.
        where: called with the event; the listener is skipped when it answers false.
        once: whether the listener goes after its first event.
        priority: higher ones are called first.
    """

    __slots__ = ("_signal", "handler", "once", "priority", "where")

    def __init__(
        self, signal: Signal[E], handler: Listener[E], *, where: Callable[[E], bool] | None, once: bool, priority: int
    ) -> None:
        self._signal = signal
        self.handler = handler
        self.where = where
        self.once = once
        self.priority = priority

    def __call__(self, event: E) -> Awaitable[object] | object:
        """Call the listener as the function it is."""
        return self.handler(event)

    def cancel(self) -> None:
        """Stop listening. Doing it twice is no error; a call that is under way goes on."""
        self._signal._disconnect(self)  # noqa: SLF001 - both belong to this module


@final
class Signal(Generic[E]):
    """One kind of event, and who listens to it. True when somebody does.

    Attributes:
        name: its name.
    """

    __slots__ = ("_connections", "_owner", "name")

    def __init__(self, name: str, owner: StemSignals) -> None:
        self.name = name
        self._owner = owner
        self._connections: tuple[SignalConnection[E], ...] = ()

    def __repr__(self) -> str:
        return f"<Signal {self.name}, {len(self._connections)} connected>"

    def __bool__(self) -> bool:
        return bool(self._connections)

    def connect(
        self,
        handler: Listener[E],
        *,
        where: Callable[[E], bool] | None = None,
        once: bool = False,
        priority: int = 0,
    ) -> SignalConnection[E]:
        """Call `handler` with each event; usable as a decorator.

        Args:
            handler: a sync or async function of the event. Async ones are awaited before the next one is called.
            where: a test of the event; the handler is called only when it answers true.
            once: disconnect after the first event that is handled.
            priority: higher ones are called first; those of equal priority in the order in which they connected.

        Returns:
            The connection; its `cancel` ends it.

        Raises:
            InvalidOptionError: handler or where is not callable, or priority no integer.
        """
        if not callable(handler):
            raise InvalidOptionError("handler", handler, "must be a function of the event")
        if where is not None and not callable(where):
            raise InvalidOptionError("where", where, "must be a function of the event, or None")
        integer("priority", priority, minimum=-1_000_000)
        connection = SignalConnection(self, handler, where=where, once=once, priority=priority)
        # sorted() is stable, and the new one comes last: connection order holds within a priority.
        self._connections = tuple(sorted((*self._connections, connection), key=lambda c: -c.priority))
        return connection

    def _disconnect(self, connection: SignalConnection[E]) -> None:
        self._connections = tuple(c for c in self._connections if c is not connection)

    async def send(self, event: E) -> None:
        """Call the listeners with the event, one after the other.

        Not a checkpoint when nobody listens.

        Cancellation: the listener under way is cancelled, later ones are not called.
        """
        for connection in self._connections:
            if connection not in self._connections:
                continue  # a listener before it, or a send that overlaps with this one, has ended it
            try:
                if connection.where is not None and not connection.where(event):
                    continue
                if connection.once:
                    self._disconnect(connection)
                result = connection.handler(event)
                if inspect.isawaitable(result):
                    await self._finish(result)
            except Exception as error:  # noqa: BLE001 - the rule of this module: listeners cannot hurt tasks
                self._owner._report(self.name, error)  # noqa: SLF001 - both belong to this module

    async def _finish(self, result: Awaitable[object]) -> None:
        seconds = self._owner.listener_timeout
        with trio.move_on_after(seconds) as scope:
            await result
        if scope.cancelled_caught:
            raise TimeoutError(f"the listener did not return within {seconds:g} s")


@final
class StemSignals:
    """All signals of one application.

    Those of a producer: `before_task_publish`, `after_task_publish`. Awaited before a run: `task_received`,
    `task_prerun`. Sent when the broker has confirmed how the run ended, in the order given: one of `task_succeeded`,
    `task_retry`, `task_failed` then `task_dead_lettered`, `task_revoked`, `task_expired`, `task_released`,
    `task_lease_lost`; then `task_postrun` if the handler had been started. `task_soft_timeout` comes while it runs.
    Of the worker itself: `worker_init`, `worker_ready`, `worker_heartbeat`, `worker_stopping`, `worker_shutdown`,
    `worker_child_init`, `worker_child_shutdown` (the last two once tasks run in child processes).

    Args:
        listener_timeout: seconds (or timedelta) after which an async listener that has not returned is cancelled.
        on_error: called with the name of the signal and the exception when a listener fails, after it is logged.
    """

    def __init__(self, *, listener_timeout: float | timedelta = 30.0, on_error: ErrorReport | None = None) -> None:
        self.listener_timeout: Final = duration("listener_timeout", listener_timeout, positive=True)
        self._on_error = on_error

        self.before_task_publish: Final = Signal[events.PublishEvent]("before_task_publish", self)
        self.after_task_publish: Final = Signal[events.PublishEvent]("after_task_publish", self)
        self.task_received: Final = Signal[events.TaskReceived]("task_received", self)
        self.task_prerun: Final = Signal[events.TaskPrerun]("task_prerun", self)
        self.task_postrun: Final = Signal[events.TaskPostrun]("task_postrun", self)
        self.task_succeeded: Final = Signal[events.TaskSucceeded]("task_succeeded", self)
        self.task_failed: Final = Signal[events.TaskFailed]("task_failed", self)
        self.task_retry: Final = Signal[events.TaskRetry]("task_retry", self)
        self.task_revoked: Final = Signal[events.TaskRevoked]("task_revoked", self)
        self.task_expired: Final = Signal[events.TaskExpired]("task_expired", self)
        self.task_dead_lettered: Final = Signal[events.TaskDeadLettered]("task_dead_lettered", self)
        self.task_lease_lost: Final = Signal[events.TaskLeaseLost]("task_lease_lost", self)
        self.task_soft_timeout: Final = Signal[events.TaskSoftTimeout]("task_soft_timeout", self)
        self.task_released: Final = Signal[events.TaskReleased]("task_released", self)
        self.worker_init: Final = Signal[events.WorkerEvent]("worker_init", self)
        self.worker_ready: Final = Signal[events.WorkerEvent]("worker_ready", self)
        self.worker_heartbeat: Final = Signal[events.WorkerHeartbeatSent]("worker_heartbeat", self)
        self.worker_stopping: Final = Signal[events.WorkerStopped]("worker_stopping", self)
        self.worker_shutdown: Final = Signal[events.WorkerStopped]("worker_shutdown", self)
        self.worker_child_init: Final = Signal[events.WorkerChildEvent]("worker_child_init", self)
        self.worker_child_shutdown: Final = Signal[events.WorkerChildEvent]("worker_child_shutdown", self)

    def _report(self, signal: str, error: Exception) -> None:
        _logger.error("a listener of %s failed", signal, exc_info=error)
        if self._on_error is not None:
            try:
                self._on_error(signal, error)
            except Exception:
                _logger.exception("the on_error report of the signals failed")


default: Final = StemSignals()
"""The signals of every producer and worker in this process that is not given its own."""
