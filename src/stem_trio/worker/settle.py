"""Ends deliveries: result first, then settlement, in batches, until the store has confirmed it or the lease is over."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from .._groups import open_transparent_nursery
from ..errors import StoreUnavailableError
from ..outcome import LeaseLost, Outcome, Release
from ..settlement import decide
from .held import Cause, Phase
from .report import Reporter
from .setup import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..abc import JointStore
    from ..outcome import Settlement
    from ..status import TaskStatus
    from .held import Held, Holdings
    from .notify import EventPump
    from .setup import Setup

__all__ = ["Settler"]

_LEASE_LOST: Final = LeaseLost()
_AT_ONCE: Final = 3
_FEW: Final = 8

_logger = logging.getLogger(__name__)


@final
class Settler:
    """Takes finished runs, and sees them through record and settlement.

    Leases are renewed in the meantime: a backend that is away holds the work up, but no handler is run again for it.
    What ends together is settled together, and so is what ends while that is under way. Only when this is much, it does
    not wait for the batch before it, so that a busy worker does not stand still for each answer of the store.
    """

    def __init__(self, setup: Setup, holdings: Holdings, pump: EventPump) -> None:
        self._setup = setup
        self._holdings = holdings
        self.reporter: Final = Reporter(setup, pump)
        self._queue: list[Held] = []
        self._under_way = 0
        self._much = max(_FEW, setup.capacity // 4)
        self._backoff = Backoff()
        self._pause_until = -math.inf
        self._kick = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._progress: trio.Event | None = None

    def finish(self, held: Held, outcome: Outcome) -> None:
        """A run has ended; have that recorded and settled. Never waits."""
        if held.phase in (Phase.FINISHED, Phase.SETTLED):
            return
        if held.cause is Cause.LEASE_LOST:
            # Whatever the handler made of it. A settlement would be refused; a record, written first, might not be.
            outcome = _LEASE_LOST
        held.phase = Phase.FINISHED
        held.outcome = outcome
        setup = self._setup
        held.status, held.settlement = decide(
            outcome, held.delivery, now=setup.clock.now(), worker=setup.worker_id, started_at=held.started_at
        )
        if held.settlement is None:
            self._end(held, outcome)
            return
        self._queue.append(held)
        self._kick.set()
        if self._idle.is_set():
            self._idle = trio.Event()

    async def wait_idle(self) -> None:
        """Wait until everything that was finished is settled or lost.

        Cancellation: changes nothing.
        """
        await self._idle.wait()

    async def wait_progress(self) -> None:
        """Wait until some more runs are settled or lost.

        Cancellation: changes nothing.
        """
        if self._progress is None:
            self._progress = trio.Event()
        await self._progress.wait()

    async def run(self) -> None:
        """Settle runs as they end, for ever.

        Cancellation: runs under way may or may not be settled; they are in the queue again.

        Raises:
            StoreError: a store refuses for a reason other than being away.
        """
        async with open_transparent_nursery() as batches:
            while True:
                await self._kick.wait()
                self._kick = trio.Event()
                await trio.sleep_until(self._pause_until)
                # Leases may have ended while handlers, the store or this process stood still: what can no longer be
                # settled must not be recorded either.
                self._drop_lost()
                if self._queue and (
                    not self._under_way or (self._under_way < _AT_ONCE and len(self._queue) >= self._much)
                ):
                    batch, self._queue = self._queue, []
                    self._under_way += 1
                    batches.start_soon(self._carry_out, batch)

    async def _carry_out(self, batch: list[Held]) -> None:
        """Settle a batch; what could not be settled is in the queue again, whatever the reason."""
        try:
            await self._settle(batch)
            self._backoff.reset()
        except StoreUnavailableError as error:
            _logger.warning("cannot settle %d task(s), will try again: %s", len(batch), error)
            self._pause_until = trio.current_time() + self._backoff.next()
        finally:
            self._queue[:0] = [held for held in batch if held.phase is not Phase.SETTLED]
            self._under_way -= 1
            self._drop_lost()
            self._kick.set()

    async def settle_rest(self) -> None:
        """One last attempt at what is in the queue, for when `run` has ended.

        Cancellation: runs under way may or may not be settled.
        """
        self._drop_lost()
        try:
            await self._settle(self._queue)
        except StoreUnavailableError as error:
            left = sum(held.phase is not Phase.SETTLED for held in self._queue)
            _logger.warning("cannot settle %d task(s); they come back when their lease ends: %s", left, error)
        self._queue = [held for held in self._queue if held.phase is not Phase.SETTLED]

    async def _settle(self, batch: list[Held]) -> None:
        if self._setup.joint is not None:
            await self._tell_both(batch, self._setup.joint)
            return
        releases = [held for held in batch if type(held.settlement) is Release]
        if releases:
            # To give a task back needs no word of the backend; others are waiting for it.
            await self._tell_broker(releases)
            batch = [held for held in batch if type(held.settlement) is not Release]
            await self._record_released(releases)
        if batch:
            await self._record(batch)
            await self._tell_broker(batch)

    async def _tell_both(self, batch: list[Held], joint: JointStore) -> None:
        endings = [(held.lease, _settlement(held), _status(held)) for held in batch]
        await self._tell(batch, partial(joint.settle, endings))

    async def _record(self, batch: Iterable[Held]) -> None:
        unrecorded = [held for held in batch if not held.recorded]
        if unrecorded:
            statuses = [_status(held) for held in unrecorded]
            await self._setup.call("record", partial(self._setup.backend.record, statuses))
            for held in unrecorded:
                held.recorded = True

    async def _record_released(self, releases: list[Held]) -> None:
        try:
            await self._record(releases)
        except StoreUnavailableError as error:
            _logger.warning("%d task(s) were given back, but that could not be recorded: %s", len(releases), error)

    async def _tell_broker(self, batch: list[Held]) -> None:
        settlements = [(held.lease, _settlement(held)) for held in batch]
        await self._tell(batch, partial(self._setup.broker.settle, settlements))

    async def _tell(self, batch: list[Held], settle: Callable[[], Awaitable[list[bool]]]) -> None:
        try:
            settled = await self._setup.call("settle", settle)
        except StoreUnavailableError as error:
            if error.maybe_applied:
                for held in batch:
                    held.unsure = True
            raise
        now = trio.current_time()
        for held, applied in zip(batch, settled, strict=True):
            # A refusal after an attempt that may have been applied means that it was, unless the lease may have ended.
            settled_before = held.unsure and now < held.deadline
            self._end(held, held.outcome if applied or settled_before else _LEASE_LOST)

    def _drop_lost(self) -> None:
        """Let go of what can no longer be settled."""
        now = trio.current_time()
        kept = []
        for held in self._queue:
            if held.deadline <= now:
                self._end(held, _LEASE_LOST)
            else:
                kept.append(held)
        self._queue = kept
        if not kept and not self._under_way:
            self._idle.set()

    def _end(self, held: Held, outcome: Outcome | None) -> None:
        held.phase = Phase.SETTLED
        self._holdings.remove(held)
        if self._progress is not None:
            self._progress.set()
            self._progress = None
        self.reporter.ended(held, outcome if outcome is not None else _LEASE_LOST)


def _status(held: Held) -> TaskStatus:
    assert held.status is not None, "only runs with a settlement are queued, and those have a status"
    return held.status


def _settlement(held: Held) -> Settlement:
    assert held.settlement is not None, "only runs with a settlement are queued"
    return held.settlement
