"""What signals carry: one immutable record for each kind of event. Moments are aware UTC datetimes."""

from __future__ import annotations

from datetime import datetime
from typing import final

import msgspec

from .context import TaskContext
from .envelope import Envelope
from .status import TaskError, TaskState, WorkerHeartbeat

__all__ = [
    "PublishEvent",
    "TaskDeadLettered",
    "TaskEvent",
    "TaskExpired",
    "TaskFailed",
    "TaskLeaseLost",
    "TaskPostrun",
    "TaskPrerun",
    "TaskReceived",
    "TaskReleased",
    "TaskRetry",
    "TaskRevoked",
    "TaskSoftTimeout",
    "TaskSucceeded",
    "WorkerChildEvent",
    "WorkerEvent",
    "WorkerHeartbeatSent",
    "WorkerStopped",
]


class PublishEvent(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """A producer is about to publish a task, or has just done so.

    Attributes:
        envelope: the task.
        delay: seconds until it may be claimed.
        occurred_at: when.
    """

    envelope: Envelope
    delay: float
    occurred_at: datetime


class TaskEvent(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """Something happened to a task at a worker.

    Attributes:
        envelope: the task.
        attempt: failed runs before this one.
        deliveries: hand-outs, this one included.
        worker: id of the worker.
        occurred_at: when.
    """

    envelope: Envelope
    attempt: int
    deliveries: int
    worker: str
    occurred_at: datetime

    @property
    def task_id(self) -> str:
        """Id of the task."""
        return self.envelope.id

    @property
    def task_name(self) -> str:
        """Name of the task."""
        return self.envelope.name


@final
class TaskReceived(TaskEvent, frozen=True, kw_only=True):
    """A worker is about to prepare a run. Its listeners are awaited before the handler starts."""


@final
class TaskPrerun(TaskEvent, frozen=True, kw_only=True):
    """The handler is about to be called. Its listeners are awaited before the handler starts.

    Attributes:
        context: the context that the handler will get.
    """

    context: TaskContext


@final
class TaskPostrun(TaskEvent, frozen=True, kw_only=True):
    """A run that reached its handler is over, however it ended; the last event of the run.

    Attributes:
        state: the state of the task now; None when the lease was lost, and the state is another worker's to tell.
    """

    state: TaskState | None


@final
class TaskSucceeded(TaskEvent, frozen=True, kw_only=True):
    """A task was completed, and the broker has confirmed it.

    Attributes:
        value: the result as raw JSON, or None when results are ignored.
    """

    value: msgspec.Raw | None


@final
class TaskFailed(TaskEvent, frozen=True, kw_only=True):
    """A task failed for good.

    Attributes:
        error: what with.
        reason: why there is no other run; also the reason of its dead letter.
    """

    error: TaskError
    reason: str


@final
class TaskRetry(TaskEvent, frozen=True, kw_only=True):
    """A task will run again.

    Attributes:
        error: what the run ended with.
        reason: what `TaskContext.retry` was given, if it was that.
        delay: seconds until the next run.
        next_retry_at: the moment of the next run.
    """

    error: TaskError
    reason: str | None
    delay: float
    next_retry_at: datetime


@final
class TaskRevoked(TaskEvent, frozen=True, kw_only=True):
    """A task was revoked, before it started or while it ran.

    Attributes:
        reason: the reason given, if any.
    """

    reason: str | None


@final
class TaskExpired(TaskEvent, frozen=True, kw_only=True):
    """A task came too late to be started."""


@final
class TaskDeadLettered(TaskEvent, frozen=True, kw_only=True):
    """A task was put with the dead letters.

    Attributes:
        reason: why.
        detail: what went wrong, for a person.
    """

    reason: str
    detail: str


@final
class TaskLeaseLost(TaskEvent, frozen=True, kw_only=True):
    """The worker lost the right to finish a task; the run was cancelled, or its end refused."""


@final
class TaskSoftTimeout(TaskEvent, frozen=True, kw_only=True):
    """A handler is at work for longer than its soft limit; it goes on.

    Attributes:
        limit: the limit in seconds.
    """

    limit: float


@final
class TaskReleased(TaskEvent, frozen=True, kw_only=True):
    """A delivery was given back, to run elsewhere at no cost to its retries.

    Attributes:
        started: whether the handler had been started.
    """

    started: bool


class WorkerEvent(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """A worker starts, or is ready.

    Attributes:
        worker: id of this incarnation.
        queues: what it claims from.
        occurred_at: when.
    """

    worker: str
    queues: tuple[str, ...]
    occurred_at: datetime


@final
class WorkerStopped(WorkerEvent, frozen=True, kw_only=True):
    """A worker is stopping, or has stopped.

    Attributes:
        mode: how: ``warm``, ``soft`` or ``hard``; also ``hard`` when a part of it has failed.
    """

    mode: str


@final
class WorkerHeartbeatSent(WorkerEvent, frozen=True, kw_only=True):
    """A worker gave a sign of life.

    Attributes:
        heartbeat: what it told.
    """

    heartbeat: WorkerHeartbeat


@final
class WorkerChildEvent(WorkerEvent, frozen=True, kw_only=True):
    """A child process of a worker was started, or has ended.

    Attributes:
        pid: process id of the child.
    """

    pid: int
