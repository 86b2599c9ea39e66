"""Renews leases, and ends the runs whose lease is lost."""

from __future__ import annotations

import logging
import math
import random
from functools import partial
from typing import TYPE_CHECKING, final

import msgspec
import trio

from .._bounded import bounded
from ..errors import LeaseLostError, StoreUnavailableError
from .held import Cause, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .held import Held, Holdings
    from .setup import Setup

__all__ = ["LeaseKeeper"]

_logger = logging.getLogger(__name__)


@final
class LeaseKeeper:
    """Keeps the leases of everything that the worker holds: waiting to start, running, or being settled.

    Each is renewed when a third of it has passed, for its full length. The local deadline counts from before the
    request was sent, so that it never lies later than the store's. A renewal that fails for want of the store is tried
    again until the lease ends; a renewal that is refused ends the run at once. The end of a lease needs no part of
    this: it is the deadline of the run's own cancel scope.

    Args:
        setup: facts of the worker.
        holdings: what it holds.
        lost: called with a delivery that has lost its lease before it was started.
    """

    def __init__(self, setup: Setup, holdings: Holdings, lost: Callable[[Held], None]) -> None:
        self._setup = setup
        self._holdings = holdings
        self._lost = lost
        self._wake_at = math.inf
        self._kick = trio.Event()

    def added(self, held: Held) -> None:
        """A delivery was taken in, or is to be renewed at another time than before."""
        if held.renew_at < self._wake_at:
            self._kick.set()

    async def run(self) -> None:
        """Renew leases when they are due, for ever.

        Cancellation: leases under way may or may not be renewed.

        Raises:
            StoreError: the broker refuses for a reason other than being away.
        """
        # Each call in a task of its own: one that hangs must not keep others waiting, whose leases may be much shorter.
        async with trio.open_nursery() as calls:
            while True:
                for batch in self._take_due(trio.current_time()):
                    calls.start_soon(self._renew, batch)
                self._kick = trio.Event()
                with trio.move_on_at(self._wake_at):
                    await self._kick.wait()

    def _take_due(self, now: float) -> list[list[Held]]:
        """What is to be renewed now, in batches of leases of about the same length; also sets when to look again.

        The shortest lease of a batch says how long its call may take.
        """
        due: dict[int, list[Held]] = {}
        ended: list[Held] = []
        wake_at = math.inf
        for held in self._holdings:
            if held.deadline <= now:
                # Running ones are ended by their scope, those being settled by the settler.
                if held.phase is Phase.WAITING:
                    ended.append(held)
                continue
            # A little early where it saves a round trip: renewed together, leases stay together.
            if held.renew_at <= now + held.lease.duration / 20:
                held.renew_at = math.inf  # until the call has ended, which sets it anew
                due.setdefault(math.frexp(held.lease.duration)[1] // 2, []).append(held)
            wake_at = min(wake_at, held.renew_at, held.deadline)
        for held in ended:
            self._lost(held)
        self._wake_at = wake_at
        return list(due.values())

    async def _renew(self, due: Sequence[Held]) -> None:
        sent_at = trio.current_time()
        leases = [held.lease for held in due]
        # A call that hangs must leave time for another one before the first of these leases ends.
        patience = min(self._setup.store_timeout, min(lease.duration for lease in leases) / 4)
        try:
            renewed = await bounded("renew", patience, partial(self._setup.broker.renew, leases))
        except StoreUnavailableError as error:
            _logger.warning("cannot renew %d lease(s), will try again: %s", len(due), error)
            now = trio.current_time()
            for held in due:
                held.renew_at = now + held.lease.duration * random.uniform(0.08, 0.12)
                self.added(held)
            return
        for held, lease, kept in zip(due, leases, renewed, strict=True):
            self._apply(held, sent_at, lease.duration, kept=kept)
        await self._look_for_revocations([held for held in due if held.phase is Phase.RUNNING and held.cause is None])

    async def _look_for_revocations(self, running: Sequence[Held]) -> None:
        """Cancel what was revoked when this worker could not hear it; a broadcast does it at once, this in the end."""
        by_queue: dict[str, list[Held]] = {}
        for held in running:
            by_queue.setdefault(held.lease.queue, []).append(held)
        for queue, some in by_queue.items():
            ask = partial(self._setup.broker.revocations, queue, [held.id for held in some])
            try:
                reasons = await self._setup.call("revocations", ask)
            except StoreUnavailableError as error:
                _logger.debug("cannot look for revocations, will at the next renewal: %s", error)
                continue
            for held, reason in zip(some, reasons, strict=True):
                if reason is not None and held.phase is Phase.RUNNING:
                    held.revoke(reason)

    def _apply(self, held: Held, sent_at: float, duration: float, *, kept: bool) -> None:
        if kept:
            held.deadline = max(held.deadline, sent_at + duration)
            held.scope.deadline = min(held.deadline, self._holdings.stop_at)
            held.renew_at = sent_at + duration / 3
            self.added(held)
        elif held.phase is Phase.WAITING:
            self._lost(held)
        elif held.phase is Phase.RUNNING:
            held.renew_at = math.inf
            held.cancel(Cause.LEASE_LOST)
        # Else it was settled in the meantime, or that is about to be refused: the settler learns which.

    async def renew_now(self, held: Held, duration: float | None) -> None:
        """Renew one lease, for at least `duration` seconds from now on and at each later renewal.

        Cancellation: the lease may or may not be renewed.

        Raises:
            LeaseLostError: it is lost; the run is being cancelled.
            StoreUnavailableError: the broker cannot be reached; the lease stands as it was.
        """
        lease = held.lease
        if duration is not None and duration > lease.duration:
            lease = msgspec.structs.replace(lease, duration=duration)
        sent_at = trio.current_time()
        [kept] = await self._setup.call("renew", partial(self._setup.broker.renew, [lease]))
        if kept and lease.duration > held.lease.duration:  # another call may have made it longer meanwhile
            held.lease = lease
        self._apply(held, sent_at, lease.duration, kept=kept)
        if not kept:
            raise LeaseLostError(f"the lease on task {held.id!r} has ended")
