"""What the result backend remembers: the status of a task, and the heartbeat of a worker."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar, final

import attrs
import msgspec

from .codec import OptionalRaw
from .errors import TaskExpiredError, TaskFailedError, TaskRevokedError

__all__ = ["Progress", "TaskError", "TaskResult", "TaskState", "TaskStatus", "WorkerHeartbeat"]

R = TypeVar("R")


@final
class TaskState(enum.Enum):
    """Where a task is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REVOKED = "revoked"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether the task is over: nothing will run unless it is replayed."""
        return self in _TERMINAL


# A tuple: it is looked up by identity, where a set would hash members of an enum, which costs several times as much.
_TERMINAL: Final = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.REVOKED, TaskState.EXPIRED)


@final
class TaskError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run failed with, as text that crosses processes.

    Attributes:
        type: qualified name of the exception's class.
        message: its text.
        traceback: formatted traceback, shortened in the middle when very long.
        retryable: whether another run was, or would have been, worth it.
    """

    type: str
    message: str
    traceback: str = ""
    retryable: bool = True


@final
class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a running task says it is.

    Attributes:
        percent: 0 to 100.
        data: any JSON value of the handler's.
        at: when it was reported, seconds since the epoch.
    """

    percent: float
    at: float
    data: OptionalRaw = None

    def decode(self) -> Any:
        """`data` as Python objects."""
        return None if self.data is None else msgspec.json.decode(self.data)


class Rank:
    """Order of the states within one delivery; the low digit of `TaskStatus.version`."""

    ENQUEUED: Final = 0
    RUNNING: Final = 1
    GIVEN_BACK: Final = 2
    TERMINAL: Final = 3
    REPLAYED: Final = 4
    SPAN: Final = 8


@final
class TaskStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one task. Times are seconds since the epoch, durations seconds.

    Attributes:
        id: task id.
        name: task name.
        queue: its queue.
        state: where it is in its life.
        version: ``8 * deliveries + rank``: a store refuses a record whose version is less than the one it has.
        attempt: failed runs of the handler before this state.
        deliveries: hand-outs so far.
        updated_at: when this record was made.
        ttl: how long to keep this record, from when it was made.
        worker: id of the worker that made it.
        started_at: when the last run began.
        value: the returned value, raw JSON; None unless succeeded, and when results are ignored.
        error: the last failure.
        reason: why it was revoked, retried or given up.
        next_retry_at: when the next run is due, while retrying.
        progress: what the running handler last reported.
        parent_id: id of the task that enqueued it.
        root_id: id of the first task of its line.
    """

    id: str
    name: str
    queue: str
    state: TaskState
    version: int
    updated_at: float
    ttl: float
    attempt: int = 0
    deliveries: int = 0
    worker: str | None = None
    started_at: float | None = None
    value: OptionalRaw = None
    error: TaskError | None = None
    reason: str | None = None
    next_retry_at: float | None = None
    progress: Progress | None = None
    parent_id: str | None = None
    root_id: str | None = None

    def encode(self) -> bytes:
        """The form in which stores keep it: one JSON object."""
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> TaskStatus:
        """A status from its stored form.

        Raises:
            msgspec.DecodeError: the data is not a status.
        """
        try:
            return _decoder.decode(data)
        except (UnicodeDecodeError, RecursionError) as error:  # not wrapped by msgspec
            raise msgspec.DecodeError(str(error)) from error


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(TaskStatus)


@final
@attrs.frozen(kw_only=True)
class TaskResult(Generic[R]):
    """The end of a task, as `wait_for_task` returns it.

    Attributes:
        task_id: id of the task.
        state: a terminal state.
        value: what the handler returned, decoded; None unless succeeded.
        error: what it failed with, when failed.
        attempt: failed runs before the last one.
        reason: why it was revoked or given up.
    """

    task_id: str
    state: TaskState
    value: R | None
    error: TaskError | None
    attempt: int
    reason: str | None = None

    def unwrap(self) -> R:
        """The value of a succeeded task.

        Raises:
            TaskFailedError: it failed.
            TaskRevokedError: it was revoked.
            TaskExpiredError: it expired before it was started.
        """
        match self.state:
            case TaskState.FAILED:
                raise TaskFailedError(self.task_id, self.error)
            case TaskState.REVOKED:
                raise TaskRevokedError(self.task_id, self.reason)
            case TaskState.EXPIRED:
                raise TaskExpiredError(self.task_id)
            case _:
                return self.value  # type: ignore[return-value]  # R itself may be None


@final
class WorkerHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life of one worker, and what it is doing. Times are seconds since the epoch.

    Attributes:
        worker: id of this incarnation of the worker.
        host: name of its host.
        pid: its process.
        state: a `WorkerState` value.
        queues: what it claims from.
        concurrency: how many handlers may run at once.
        in_flight: deliveries it holds: waiting to start, running, or being settled.
        running: handlers at work now.
        totals: counts since it started, by outcome.
        started_at: when it started.
        sent_at: when this was made.
    """

    worker: str
    host: str
    pid: int
    state: str
    queues: tuple[str, ...]
    concurrency: int
    in_flight: int
    running: int
    totals: Mapping[str, int]
    started_at: float
    sent_at: float
