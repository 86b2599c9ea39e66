"""Tells the world how runs ended: counts, log, and events."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, final

from ..clock import to_datetime
from ..events import (
    TaskDeadLettered,
    TaskExpired,
    TaskFailed,
    TaskLeaseLost,
    TaskPostrun,
    TaskReleased,
    TaskRetry,
    TaskRevoked,
    TaskSucceeded,
)
from ..outcome import (
    Expired,
    Failed,
    Interrupted,
    LeaseLost,
    MoveToDead,
    Outcome,
    Retry,
    RetryRequested,
    Revoked,
    Succeeded,
    TimedOut,
)

if TYPE_CHECKING:
    from .held import Held
    from .notify import EventPump
    from .setup import Setup

__all__ = ["TOTALS", "Reporter"]

_logger = logging.getLogger(__name__)

TOTALS: Final = ("succeeded", "failed", "retried", "revoked", "expired", "released", "lease_lost")
"""What a worker counts."""


@final
class Reporter:
    """Counts how runs ended, and has the events sent that say so.

    Attributes:
        totals: counts by outcome, see `TOTALS`.
    """

    def __init__(self, setup: Setup, pump: EventPump) -> None:
        self._setup = setup
        self._pump = pump
        self.totals: dict[str, int] = dict.fromkeys(TOTALS, 0)

    def ended(self, held: Held, outcome: Outcome) -> None:
        """A run has ended, and the broker has confirmed it (or refused: `LeaseLost`)."""
        signals = self._setup.signals
        match outcome:
            case Succeeded():
                self.totals["succeeded"] += 1
                if signals.task_succeeded:
                    value = held.status.value if held.status is not None else None
                    self._pump.put(signals.task_succeeded, TaskSucceeded(**self._facts(held), value=value))
            case Failed() | TimedOut() | RetryRequested():
                self._failed(held, outcome)
            case Revoked(reason):
                self.totals["revoked"] += 1
                if signals.task_revoked:
                    self._pump.put(signals.task_revoked, TaskRevoked(**self._facts(held), reason=reason or None))
            case Expired():
                self.totals["expired"] += 1
                if signals.task_expired:
                    self._pump.put(signals.task_expired, TaskExpired(**self._facts(held)))
            case Interrupted():
                self.totals["released"] += 1
                if signals.task_released:
                    started = held.started_at is not None
                    self._pump.put(signals.task_released, TaskReleased(**self._facts(held), started=started))
            case _:  # LeaseLost, there is no other
                self.totals["lease_lost"] += 1
                _logger.warning("lost the lease on task %s (%s)", held.delivery.envelope.name, held.id)
                if signals.task_lease_lost:
                    self._pump.put(signals.task_lease_lost, TaskLeaseLost(**self._facts(held)))
        if signals.task_postrun and held.started_at is not None:
            lost = isinstance(outcome, LeaseLost) or held.status is None
            state = None if lost or held.status is None else held.status.state
            self._pump.put(signals.task_postrun, TaskPostrun(**self._facts(held), state=state))

    def _failed(self, held: Held, outcome: Failed | TimedOut | RetryRequested) -> None:
        signals = self._setup.signals
        envelope = held.delivery.envelope
        error = outcome.error
        match held.settlement:
            case Retry(delay):
                self.totals["retried"] += 1
                _logger.info("task %s (%s) will run again in %.3g s: %s", envelope.name, held.id, delay, error.type)
                if signals.task_retry:
                    due = held.status.next_retry_at if held.status is not None else None
                    event = TaskRetry(
                        **self._facts(held),
                        error=error,
                        reason=outcome.reason if isinstance(outcome, RetryRequested) else None,
                        delay=delay,
                        next_retry_at=to_datetime(due or 0.0),
                    )
                    self._pump.put(signals.task_retry, event)
            case _ as settlement:
                assert isinstance(settlement, MoveToDead), "failures end one way or the other"
                reason, detail = settlement.reason, settlement.detail
                self.totals["failed"] += 1
                _logger.error("task %s (%s) failed (%s): %s", envelope.name, held.id, reason, detail)
                if signals.task_failed:
                    failed = TaskFailed(**self._facts(held), error=error, reason=reason)
                    self._pump.put(signals.task_failed, failed)
                if signals.task_dead_lettered:
                    dead = TaskDeadLettered(**self._facts(held), reason=reason, detail=detail)
                    self._pump.put(signals.task_dead_lettered, dead)

    def _facts(self, held: Held) -> dict[str, Any]:
        delivery = held.delivery
        return {
            "envelope": delivery.envelope,
            "attempt": delivery.attempt,
            "deliveries": delivery.deliveries,
            "worker": self._setup.worker_id,
            "occurred_at": self._setup.now(),
        }
