"""How one run of a task ended, and what the broker is told in consequence."""

from __future__ import annotations

import enum
from typing import final

import msgspec

from .codec import OptionalRaw
from .status import TaskError

__all__ = [
    "Complete",
    "DeadLetterReason",
    "Expired",
    "Failed",
    "Interrupted",
    "LeaseLost",
    "MoveToDead",
    "Outcome",
    "Release",
    "Retry",
    "RetryRequested",
    "Revoked",
    "Settlement",
    "Succeeded",
    "TimedOut",
]


@final
class DeadLetterReason(enum.StrEnum):
    """Why the runtime itself puts tasks with the dead letters."""

    MAX_RETRIES_EXHAUSTED = "max-retries-exhausted"
    NOT_RETRYABLE = "not-retryable"
    UNREGISTERED_TASK = "unregistered-task"
    INVALID_ARGUMENTS = "invalid-arguments"
    UNSERIALIZABLE_RESULT = "unserializable-result"
    POISON = "poison"
    SIGNATURE_INVALID = "signature-invalid"
    UNREADABLE = "unreadable"


# --- outcomes -----------------------------------------------------------------------------------------------------


class Outcome(msgspec.Struct, frozen=True):
    """How one run ended."""


@final
class Succeeded(Outcome, frozen=True):
    """The handler returned; `value` is the result as JSON, None when results are ignored."""

    value: OptionalRaw = None


@final
class Failed(Outcome, frozen=True):
    """The handler raised, or the task could not be given to a handler.

    Attributes:
        error: what with.
        delay: seconds until the next run, should there be one.
        reason: dead-letter reason when the error itself rules out another run; None when it does not.
    """

    error: TaskError
    delay: float = 0.0
    reason: str | None = None


@final
class TimedOut(Outcome, frozen=True):
    """The handler was cancelled at its hard limit; counts as a failure worth retrying."""

    error: TaskError
    delay: float = 0.0


@final
class RetryRequested(Outcome, frozen=True):
    """The handler asked for another run after `delay` seconds."""

    error: TaskError
    delay: float
    reason: str | None = None


@final
class Revoked(Outcome, frozen=True):
    """The task was revoked before it started, or while it ran and the handler was cancelled for it."""

    reason: str | None = None


@final
class Expired(Outcome, frozen=True):
    """The task was not started in time."""


@final
class Interrupted(Outcome, frozen=True):
    """The worker gave up the run for its own reasons (shutdown); the task is to run elsewhere, at no cost to it."""


@final
class LeaseLost(Outcome, frozen=True):
    """The lease ended before the run did; whatever the handler did, this worker has no say about it any more."""


# --- settlements --------------------------------------------------------------------------------------------------


class Settlement(msgspec.Struct, frozen=True):
    """What the broker is told about a delivery."""


@final
class Complete(Settlement, frozen=True):
    """The task is over: delete it."""


@final
class Retry(Settlement, frozen=True):
    """Run again in `delay` seconds; adds one to the attempt and clears the strikes."""

    delay: float = 0.0


@final
class MoveToDead(Settlement, frozen=True):
    """Keep the task with the dead letters, its numbers as they were in this delivery."""

    reason: str
    detail: str = ""


@final
class Release(Settlement, frozen=True):
    """Give the task back as it was: attempt and strikes as before this delivery, ready at once."""
