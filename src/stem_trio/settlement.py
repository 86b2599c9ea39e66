"""From outcome to record and settlement: one pure function, the whole policy of how a run ends.

=====================  =======================================  ==============  ===================================
outcome                when                                     status          settlement
=====================  =======================================  ==============  ===================================
`Succeeded`            always                                   succeeded       `Complete`
`Failed`, `TimedOut`   the error rules out another run          failed          `MoveToDead` (the error's reason)
..                     retries are left                         retrying        `Retry`
..                     none is left                             failed          `MoveToDead` max-retries-exhausted
`RetryRequested`       retries are left                         retrying        `Retry`
..                     none is left                             failed          `MoveToDead` max-retries-exhausted
`Revoked`              always                                   revoked         `Complete`
`Expired`              always                                   expired         `Complete`
`Interrupted`          always                                   queued          `Release`
`LeaseLost`            always                                   none            none
=====================  =======================================  ==============  ===================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .outcome import (
    Complete,
    DeadLetterReason,
    Expired,
    Failed,
    Interrupted,
    LeaseLost,
    MoveToDead,
    Outcome,
    Release,
    Retry,
    RetryRequested,
    Revoked,
    Settlement,
    Succeeded,
    TimedOut,
)
from .status import Rank, TaskState, TaskStatus

if TYPE_CHECKING:
    from .envelope import Delivery, Envelope
    from .status import Progress, TaskError

__all__ = ["LIVE_TTL", "decide", "purged_status", "replayed_status", "running_status", "submitted_status"]

LIVE_TTL: Final = 7 * 86_400.0
"""Seconds for which the status of an unfinished task outlives its last change (or its due time)."""

_COMPLETE: Final = Complete()
_RELEASE: Final = Release()


def decide(
    outcome: Outcome, delivery: Delivery, *, now: float, worker: str | None = None, started_at: float | None = None
) -> tuple[TaskStatus | None, Settlement | None]:
    """What to record and how to settle, given how a run ended.

    Pure: the same input gives the same output, nothing is read or written elsewhere.

    Args:
        outcome: how it ended.
        delivery: what was run; its envelope tells the number of retries and the retention.
        now: wall-clock time to put on the record.
        worker: id of the worker, for the record.
        started_at: when the handler was started, for the record; None when it was not.

    Returns:
        The status to record and the settlement to make, in that order; two times None when the lease is lost.
    """
    if type(outcome) is Succeeded:
        # The way of nearly all of them, without the detours of the others.
        envelope = delivery.envelope
        deliveries = delivery.deliveries
        status = TaskStatus(
            id=envelope.id,
            name=envelope.name,
            queue=envelope.queue,
            state=TaskState.SUCCEEDED,
            version=deliveries * Rank.SPAN + Rank.TERMINAL,
            updated_at=now,
            ttl=envelope.result_ttl,
            attempt=delivery.attempt,
            deliveries=deliveries,
            worker=worker,
            started_at=started_at,
            value=outcome.value,
            parent_id=envelope.parent_id,
            root_id=envelope.root_id,
        )
        return status, _COMPLETE
    match outcome:
        case Failed(error, delay, reason):
            return _failure(error, delay, reason, None, delivery, now, worker, started_at)
        case TimedOut(error, delay):
            return _failure(error, delay, None, None, delivery, now, worker, started_at)
        case RetryRequested(error, delay, why):
            return _failure(error, delay, None, why, delivery, now, worker, started_at)
        case Revoked(reason):
            return _end(TaskState.REVOKED, delivery, now, worker, started_at, reason=reason or None), _COMPLETE
        case Expired():
            return _end(TaskState.EXPIRED, delivery, now, worker, started_at), _COMPLETE
        case Interrupted():
            return _status(TaskState.QUEUED, Rank.GIVEN_BACK, delivery, now, worker, started_at, LIVE_TTL), _RELEASE
        case LeaseLost():
            return None, None
        case _:
            raise TypeError(f"not an outcome: {outcome!r}")


def _failure(
    error: TaskError,
    delay: float,
    final_reason: str | None,
    requested: str | None,
    delivery: Delivery,
    now: float,
    worker: str | None,
    started_at: float | None,
) -> tuple[TaskStatus, Settlement]:
    if final_reason is None and delivery.attempt < delivery.envelope.max_retries:
        status = _status(
            TaskState.RETRYING,
            Rank.GIVEN_BACK,
            delivery,
            now,
            worker,
            started_at,
            LIVE_TTL + delay,
            error=error,
            reason=requested,
            next_retry_at=now + delay,
        )
        return status, Retry(delay)
    reason = final_reason or DeadLetterReason.MAX_RETRIES_EXHAUSTED
    detail = f"{error.type}: {error.message}"
    status = _end(TaskState.FAILED, delivery, now, worker, started_at, error=error, reason=str(reason))
    return status, MoveToDead(str(reason), detail)


def _end(
    state: TaskState,
    delivery: Delivery,
    now: float,
    worker: str | None,
    started_at: float | None,
    *,
    error: TaskError | None = None,
    reason: str | None = None,
) -> TaskStatus:
    ttl = delivery.envelope.result_ttl
    return _status(state, Rank.TERMINAL, delivery, now, worker, started_at, ttl, error=error, reason=reason)


def _status(
    state: TaskState,
    rank: int,
    delivery: Delivery,
    now: float,
    worker: str | None,
    started_at: float | None,
    ttl: float,
    *,
    error: TaskError | None = None,
    reason: str | None = None,
    next_retry_at: float | None = None,
    progress: Progress | None = None,
) -> TaskStatus:
    envelope = delivery.envelope
    return TaskStatus(
        id=envelope.id,
        name=envelope.name,
        queue=envelope.queue,
        state=state,
        version=delivery.deliveries * Rank.SPAN + rank,
        updated_at=now,
        ttl=ttl,
        attempt=delivery.attempt,
        deliveries=delivery.deliveries,
        worker=worker,
        started_at=started_at,
        error=error,
        reason=reason,
        next_retry_at=next_retry_at,
        progress=progress,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
    )


def running_status(
    delivery: Delivery, *, now: float, worker: str, started_at: float, progress: Progress | None = None
) -> TaskStatus:
    """The record of a task that is being run, with what it last reported of its progress."""
    return _status(TaskState.RUNNING, Rank.RUNNING, delivery, now, worker, started_at, LIVE_TTL, progress=progress)


def submitted_status(envelope: Envelope, *, now: float, delay: float) -> TaskStatus:
    """The record of a task that a producer has just published; older than anything a worker says of it."""
    return _waiting(envelope, TaskState.QUEUED, Rank.ENQUEUED, 0, now, LIVE_TTL + delay)


def replayed_status(envelope: Envelope, *, now: float, delay: float, deliveries: int) -> TaskStatus:
    """The record of a dead letter put back into its queue; newer than the failure, older than the next run."""
    return _waiting(envelope, TaskState.QUEUED, Rank.REPLAYED, deliveries, now, LIVE_TTL + delay)


def purged_status(envelope: Envelope, *, now: float, deliveries: int) -> TaskStatus:
    """The record of a task that is removed from its queue before it was run again; older than a next run."""
    return _waiting(envelope, TaskState.REVOKED, Rank.TERMINAL, deliveries, now, envelope.result_ttl, "purged")


def _waiting(
    envelope: Envelope, state: TaskState, rank: int, deliveries: int, now: float, ttl: float, reason: str | None = None
) -> TaskStatus:
    return TaskStatus(
        id=envelope.id,
        name=envelope.name,
        queue=envelope.queue,
        state=state,
        version=deliveries * Rank.SPAN + rank,
        updated_at=now,
        ttl=ttl,
        deliveries=deliveries,
        reason=reason,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
    )
