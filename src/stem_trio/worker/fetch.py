"""Claims deliveries for free places, and starts them as slots come free."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from .._bounded import bounded
from ..errors import StoreUnavailableError
from .held import Phase
from .prefetch import Prefetch
from .run import INTERRUPTED
from .setup import Backoff

if TYPE_CHECKING:
    from ..outcome import Outcome
    from .held import Held, Holdings
    from .lease import LeaseKeeper
    from .notify import EventPump
    from .run import Runner
    from .settle import Settler
    from .setup import Setup

__all__ = ["Fetcher"]

_WAIT: Final = 30.0
"""Seconds for which one claim waits in the store; it is then asked again."""

_logger = logging.getLogger(__name__)


@final
class Fetcher:
    """Claims no more than there is room for: free slots, and the prefetch.

    What is claimed and has no slot yet waits here, under a lease that is renewed, and starts by priority.

    Args:
        setup: facts of the worker.
        holdings: what it holds.
        runner: runs deliveries.
        settler: ends them.
        keeper: renews leases.
        pump: tells whether listeners lag behind.
        nursery: where runs live.
    """

    def __init__(
        self,
        setup: Setup,
        holdings: Holdings,
        runner: Runner,
        settler: Settler,
        keeper: LeaseKeeper,
        pump: EventPump,
        nursery: trio.Nursery,
    ) -> None:
        self._setup = setup
        self._holdings = holdings
        self._runner = runner
        self._settler = settler
        self._keeper = keeper
        self._pump = pump
        self._nursery = nursery
        self._waiting: list[tuple[int, int, Held]] = []
        self._order = itertools.count()
        self._prefetch = Prefetch(setup.concurrency, setup.prefetch)
        self._stopped = False
        # Runs are started from each other's ends, and must not inherit the context variables of the one before.
        self._context = contextvars.copy_context()

    async def run(self) -> None:
        """Claim and start, for ever.

        Cancellation: deliveries that a claim has taken but not returned come back when their lease ends.

        Raises:
            StoreError: the broker refuses for a reason other than being away.
        """
        setup = self._setup
        backoff = Backoff()
        while True:
            if self._pump.lagging:
                await self._pump.wait_empty()
            if self._waiting and self._prefetch.stalled():
                self._give_back()
            room = setup.concurrency + self._prefetch.allowed() - len(self._holdings)
            patience = self._prefetch.patience if self._waiting else math.inf
            if room <= 0:
                with trio.move_on_after(patience):
                    await self._holdings.wait_removed()
                continue
            wait = min(_WAIT, patience)
            claim = partial(setup.broker.claim, setup.queues, consumer=setup.worker_id, limit=room, wait=wait)
            try:
                deliveries = await bounded("claim", wait + setup.store_timeout, claim)
                backoff.reset()
            except StoreUnavailableError as error:
                seconds = backoff.next()
                _logger.warning("cannot claim tasks, will try again in %.2g s: %s", seconds, error)
                await trio.sleep(seconds)
                continue
            self._start_waiting()
            for delivery in deliveries:
                held = self._holdings.add(delivery)
                self._keeper.added(held)
                if self._holdings.running < setup.concurrency and not self._stopped:
                    self._start(held)
                else:
                    heapq.heappush(self._waiting, (-delivery.envelope.priority, next(self._order), held))
            if len(self._waiting) > 2 * setup.capacity:
                # Deliveries that have lost their lease while they waited; they must not pile up behind long runs.
                self._waiting = [entry for entry in self._waiting if entry[2].phase is Phase.WAITING]
                heapq.heapify(self._waiting)

    def _start_waiting(self) -> None:
        while self._waiting and self._holdings.running < self._setup.concurrency and not self._stopped:
            held = heapq.heappop(self._waiting)[2]
            if held.phase is Phase.WAITING:
                self._start(held)

    def _start(self, held: Held) -> None:
        held.phase = Phase.RUNNING
        self._holdings.running += 1
        self._prefetch.started()
        self._context.run(lambda: self._nursery.start_soon(self._run, held, name=held.delivery.envelope.name))

    async def _run(self, held: Held) -> None:
        outcome: Outcome = INTERRUPTED
        try:
            outcome = await self._runner.run(held)
        finally:
            # However it ends, cancellation and errors of the worker's own included, the delivery is accounted for.
            self._holdings.running -= 1
            self._settler.finish(held, outcome)
            self._start_waiting()

    def stop(self) -> None:
        """Start nothing more, and have what waits given back."""
        self._stopped = True
        self._give_back()

    def _give_back(self) -> None:
        while self._waiting:
            self._settler.finish(heapq.heappop(self._waiting)[2], INTERRUPTED)
