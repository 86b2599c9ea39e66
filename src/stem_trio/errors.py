"""One exception tree: everything this package raises on purpose is a `StemError`.

Errors about input name the field and the remedy. Errors about stores say whether the operation may have been applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .status import TaskError, TaskStatus

__all__ = [
    "ArgumentsError",
    "ConfigurationError",
    "DuplicateTaskError",
    "EnqueueError",
    "HardTimeLimitError",
    "InvalidEnvironmentError",
    "InvalidOptionError",
    "InvalidScheduleError",
    "LeaseLostError",
    "PayloadTooLargeError",
    "RegistrationError",
    "ResultDecodeError",
    "ResultError",
    "SerializationError",
    "SignatureInvalidError",
    "SigningError",
    "SoftTimeLimitError",
    "StemError",
    "StoreClosedError",
    "StoreError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "TaskExpiredError",
    "TaskFailedError",
    "TaskRetryRequest",
    "TaskRevokedError",
    "UnknownTaskError",
    "UnregisteredTaskError",
    "WaitTimeoutError",
    "WorkerError",
    "WorkerStateError",
]


class StemError(Exception):
    """Base of every error that stem-trio raises on purpose."""


# --- configuration and registration -------------------------------------------------------------------------------


class ConfigurationError(StemError):
    """The program is put together in a way that cannot work; the message says what to change."""


@final
class InvalidOptionError(ConfigurationError, ValueError):
    """An option has a value that is not allowed.

    Attributes:
        option: name of the option.
        value: the value that was refused.
    """

    def __init__(self, option: str, value: object, remedy: str) -> None:
        super().__init__(f"{option}={value!r}: {remedy}")
        self.option = option
        self.value = value


@final
class InvalidEnvironmentError(ConfigurationError, ValueError):
    """Environment variables cannot be used as they are. Says everything that is wrong with them, and no value of them.

    Attributes:
        problems: one text for each problem, which begins with the name of the variable.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n  ".join((f"{len(self.problems)} problem(s) in the environment:", *self.problems)))


class RegistrationError(ConfigurationError):
    """A task cannot be defined or registered as it is."""


@final
class DuplicateTaskError(RegistrationError):
    """Two different tasks claim the same name.

    Attributes:
        name: the name claimed twice.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"a task named {name!r} is already registered; give one of them another name")
        self.name = name


# --- refused by the producer, before anything is written ----------------------------------------------------------


class EnqueueError(StemError):
    """`enqueue` refused its input. Nothing was written."""


@final
class UnregisteredTaskError(EnqueueError, LookupError):
    """No task of this name is registered with the producer.

    Attributes:
        name: the unknown name.
        known: the registered names.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        listed = ", ".join(self.known) or "none"
        super().__init__(f"no task named {name!r} is registered (known: {listed}); pass it in tasks=")


@final
class ArgumentsError(EnqueueError, TypeError):
    """The arguments do not fit the task's signature.

    Attributes:
        task: name of the task.
        argument: the argument at fault, or None when the arguments as a whole are.
    """

    def __init__(self, task: str, argument: str | None, problem: str) -> None:
        where = f"argument {argument!r}" if argument else "arguments"
        super().__init__(f"task {task!r}: {where}: {problem}")
        self.task = task
        self.argument = argument


@final
class SerializationError(EnqueueError, TypeError):
    """A value cannot be represented as JSON.

    Attributes:
        field: which part of the call holds the value: ``args``, ``meta`` or ``headers``, or a path within it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@final
class PayloadTooLargeError(EnqueueError, ValueError):
    """The encoded task is larger than the producer's limit.

    Attributes:
        size: encoded size in bytes.
        limit: the limit in bytes.
    """

    def __init__(self, task: str, size: int, limit: int) -> None:
        super().__init__(
            f"task {task!r}: the encoded task has {size} bytes, over the limit of {limit}; "
            "store the data elsewhere and pass a reference, or raise max_payload_size"
        )
        self.size = size
        self.limit = limit


@final
class InvalidScheduleError(EnqueueError, ValueError):
    """delay, eta or expiry do not make sense, alone or together.

    Attributes:
        option: the option at fault.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


@final
class SigningError(EnqueueError):
    """The producer's signer cannot sign: it has keys to verify with, and none to sign with."""


# --- stores -------------------------------------------------------------------------------------------------------


class StoreError(StemError):
    """A broker or result backend could not do what it was asked."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached just now; the same call may succeed later.

    Attributes:
        maybe_applied: True when the operation may have taken effect although it is reported as failed.
    """

    def __init__(self, message: str, *, maybe_applied: bool = False) -> None:
        super().__init__(message)
        self.maybe_applied = maybe_applied


@final
class StoreTimeoutError(StoreUnavailableError):
    """The store did not answer within the time allowed. The operation may have been applied."""

    def __init__(self, operation: str, seconds: float) -> None:
        super().__init__(f"{operation}: the store did not answer within {seconds:g} s", maybe_applied=True)
        self.operation = operation
        self.seconds = seconds


@final
class StoreClosedError(StoreError):
    """The store is used outside of its ``async with`` block."""


# --- results ------------------------------------------------------------------------------------------------------


class ResultError(StemError):
    """Base of what waiting for a task, or unwrapping its result, may raise.

    Attributes:
        task_id: id of the task.
    """

    def __init__(self, task_id: str, message: str) -> None:
        super().__init__(message)
        self.task_id = task_id


@final
class UnknownTaskError(ResultError, LookupError):
    """The result backend knows nothing of this id: it was never enqueued, or its retention has ended."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id, f"no task {task_id!r} is known: never enqueued, or its retention has ended")


@final
class WaitTimeoutError(ResultError, TimeoutError):
    """The task did not reach a terminal state in time.

    Attributes:
        status: the last status seen, or None.
    """

    def __init__(self, task_id: str, seconds: float, status: TaskStatus | None) -> None:
        state = status.state.value if status is not None else "no status"
        super().__init__(task_id, f"task {task_id!r} is not finished after {seconds:g} s (last seen: {state})")
        self.status = status


@final
class TaskFailedError(ResultError):
    """The task ended as failed.

    Attributes:
        error: what the worker recorded: type, message, traceback text.
    """

    def __init__(self, task_id: str, error: TaskError | None) -> None:
        text = f"{error.type}: {error.message}" if error is not None else "no error recorded"
        super().__init__(task_id, f"task {task_id!r} failed: {text}")
        self.error = error


@final
class TaskRevokedError(ResultError):
    """The task was revoked.

    Attributes:
        reason: the reason given, or None.
    """

    def __init__(self, task_id: str, reason: str | None) -> None:
        super().__init__(task_id, f"task {task_id!r} was revoked" + (f": {reason}" if reason else ""))
        self.reason = reason


@final
class TaskExpiredError(ResultError):
    """The task was not started before it expired."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id, f"task {task_id!r} expired before it was started")


@final
class ResultDecodeError(ResultError, TypeError):
    """The stored value does not have the type that the task's annotation promises."""

    def __init__(self, task_id: str, problem: str) -> None:
        super().__init__(task_id, f"the result of task {task_id!r} cannot be decoded: {problem}")


# --- inside a handler ---------------------------------------------------------------------------------------------


@final
class TaskRetryRequest(StemError):  # noqa: N818 - a request, not an error: `context.retry` raises it
    """Raised by `TaskContext.retry`: run this task again.

    Attributes:
        after: seconds to wait, or None for what the retry strategy says.
        reason: free text for status and signal.
    """

    def __init__(self, after: float | None = None, reason: str | None = None) -> None:
        super().__init__(reason or "retry requested")
        self.after = after
        self.reason = reason


@final
class LeaseLostError(StemError):
    """The right to finish this delivery has ended; another worker may have it."""


@final
class SignatureInvalidError(StemError):
    """A task is not signed as the verifier's keys demand. Named in the status of the task; its handler is not run.

    Attributes:
        task_id: id of the task.
        problem: what is wrong.
    """

    def __init__(self, task_id: str, problem: str) -> None:
        super().__init__(f"task {task_id!r:.200}: {problem}")
        self.task_id = task_id
        self.problem = problem


@final
class SoftTimeLimitError(StemError, TimeoutError):
    """The soft time limit passed inside a ``with context.raise_at_soft_limit():`` block."""


@final
class HardTimeLimitError(StemError, TimeoutError):
    """Names, in a status, a run that was cancelled at its hard time limit. Never raised into a handler."""


# --- worker -------------------------------------------------------------------------------------------------------


class WorkerError(StemError):
    """The worker was used, or ended, in a way that it should not have been."""


@final
class WorkerStateError(WorkerError, RuntimeError):
    """The call does not fit the state that the worker is in."""


def type_name(kind: type[Any]) -> str:
    """Qualified name of a class as it is stored in statuses: ``module.QualName``, builtins without module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
