"""The deliveries that a worker holds, from the claim to the confirmed settlement."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..envelope import Delivery, Lease
    from ..outcome import Outcome, Settlement
    from ..status import Progress, TaskStatus
    from ..task import TaskDefinition

__all__ = ["Cause", "Held", "Holdings", "Phase"]


@final
class Phase(enum.Enum):
    """How far the worker is with a delivery: it waits for a slot, has one, has ended, or is settled (or lost)."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    SETTLED = "settled"


@final
class Cause(enum.Enum):
    """Why the worker itself has cancelled the scope of a run."""

    LEASE_LOST = "lease lost"
    REVOKED = "revoked"


@final
class Held:
    """One delivery in the hands of the worker.

    Attributes:
        delivery: what was handed out.
        lease: the lease, with the duration that renewals ask for.
        deadline: when the lease ends, by `trio.current_time`; moved by renewals only.
        renew_at: when to renew next.
        scope: the run's cancel scope; its deadline is the lease's, or the end of the worker if that is earlier.
        phase: how far it is.
        cause: why the scope was cancelled by the worker, if it was.
        revoke_reason: what the revocation said.
        definition: the task, once it is found.
        started_at: wall-clock time at which the handler was started.
        hard_deadline: when the hard limit ends the run, by `trio.current_time`.
        thread: whether the handler runs in a thread.
        progress: what the handler last reported.
        outcome: how the run ended, with what follows from it: `status` and `settlement`.
        recorded: whether `status` is written.
        unsure: whether an earlier attempt at settling may have been applied although it failed.
    """

    __slots__ = (
        "_cancelled",
        "_soft",
        "_soft_scopes",
        "cause",
        "deadline",
        "definition",
        "delivery",
        "hard_deadline",
        "lease",
        "outcome",
        "phase",
        "progress",
        "recorded",
        "renew_at",
        "revoke_reason",
        "scope",
        "settlement",
        "started_at",
        "status",
        "thread",
        "unsure",
    )

    def __init__(self, delivery: Delivery, limit: float) -> None:
        lease = delivery.lease
        self.delivery = delivery
        self.lease: Lease = lease
        self.deadline = lease.deadline
        self.renew_at = lease.deadline - lease.duration * 2 / 3
        self.scope = trio.CancelScope(deadline=min(lease.deadline, limit))
        self.phase = Phase.WAITING
        self.cause: Cause | None = None
        self.revoke_reason: str | None = None
        self.definition: TaskDefinition | None = None
        self.started_at: float | None = None
        self.hard_deadline = math.inf
        self.thread = False
        self.progress: Progress | None = None
        self.outcome: Outcome | None = None
        self.status: TaskStatus | None = None
        self.settlement: Settlement | None = None
        self.recorded = False
        self.unsure = False
        self._cancelled: trio.Event | None = None
        self._soft: trio.Event | None = None
        self._soft_scopes: list[trio.CancelScope] | None = None

    @property
    def id(self) -> str:
        """Id of the task."""
        return self.delivery.envelope.id

    def cancel(self, cause: Cause) -> None:
        """Cancel the run, if it has not been cancelled for another cause before."""
        if self.cause is None:
            self.cause = cause
            self.scope.cancel()

    def revoke(self, reason: str) -> None:
        """Cancel the run, since its task was revoked."""
        if self.cause is None:
            self.revoke_reason = reason
        self.cancel(Cause.REVOKED)

    @property
    def cancelled(self) -> trio.Event:
        """Set when the handler is asked to come to an end. Made when first asked for: few handlers look."""
        if self._cancelled is None:
            self._cancelled = trio.Event()
        return self._cancelled

    @property
    def soft_limit_reached(self) -> trio.Event:
        """Set at the soft limit. Made when first asked for."""
        if self._soft is None:
            self._soft = trio.Event()
        return self._soft

    def on_soft_limit(self, scope: trio.CancelScope) -> None:
        """Cancel this scope at the soft limit; now, if that has passed."""
        if self.soft_limit_reached.is_set():
            scope.cancel()
        elif self._soft_scopes is None:
            self._soft_scopes = [scope]
        else:
            self._soft_scopes.append(scope)

    def reach_soft_limit(self) -> None:
        """The soft limit has passed."""
        self.soft_limit_reached.set()
        for scope in self._soft_scopes or ():
            scope.cancel()
        self._soft_scopes = None


@final
class Holdings:
    """All deliveries that the worker holds.

    Attributes:
        running: handlers at work.
        stop_at: when the worker ends whatever happens, by `trio.current_time`; no run's scope outlasts it.
    """

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._changed = trio.Event()
        self.running = 0
        self.stop_at = math.inf

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def get(self, task_id: str) -> Held | None:
        """The delivery of this task, if the worker holds one."""
        return self._held.get(task_id)

    def add(self, delivery: Delivery) -> Held:
        """Take a delivery in.

        The broker may hand a task to the very worker that has lost it just before: the old one makes place.
        """
        held = Held(delivery, self.stop_at)
        old = self._held.get(held.id)
        if old is not None:
            old.cancel(Cause.LEASE_LOST)
        self._held[held.id] = held
        return held

    def remove(self, held: Held) -> None:
        """Let go of a delivery; doing it twice is no error."""
        if self._held.get(held.id) is held:
            del self._held[held.id]
            if not self._changed.is_set():
                self._changed.set()

    async def wait_removed(self) -> None:
        """Wait until a delivery is let go of.

        Cancellation: changes nothing.
        """
        self._changed = trio.Event()
        await self._changed.wait()

    def limit(self, stop_at: float) -> None:
        """Let no run outlast this moment."""
        self.stop_at = stop_at
        for held in self._held.values():
            held.scope.deadline = min(held.deadline, stop_at)
