"""Tells the backend, and listeners, at intervals that the worker lives and what it does."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio_util

from ..errors import StoreUnavailableError
from ..events import WorkerHeartbeatSent
from ..status import WorkerHeartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .held import Holdings
    from .notify import EventPump
    from .setup import Setup

__all__ = ["Heartbeat"]

_TTL_BEATS: Final = 6
"""Beats that may be missed before the backend forgets the worker."""

_logger = logging.getLogger(__name__)


@final
class Heartbeat:
    """The worker's sign of life; beats until the last run has ended.

    Args:
        setup: facts of the worker.
        holdings: what it holds.
        totals: its counts.
        state: tells its state.
        pump: sends the signal.
        interval: seconds between beats.
    """

    def __init__(
        self,
        setup: Setup,
        holdings: Holdings,
        totals: Mapping[str, int],
        state: Callable[[], str],
        pump: EventPump,
        interval: float,
    ) -> None:
        self._setup = setup
        self._holdings = holdings
        self._totals = totals
        self._state = state
        self._pump = pump
        self._interval = interval
        self._started_at = setup.clock.now()

    def take(self) -> WorkerHeartbeat:
        """What the worker is doing now."""
        setup = self._setup
        return WorkerHeartbeat(
            worker=setup.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            state=self._state(),
            queues=setup.queues,
            concurrency=setup.concurrency,
            in_flight=len(self._holdings),
            running=self._holdings.running,
            totals=dict(self._totals),
            started_at=self._started_at,
            sent_at=setup.clock.now(),
        )

    async def run(self) -> None:
        """Beat now, and then at each interval, for ever.

        Cancellation: a beat under way may or may not be written.

        Raises:
            StoreError: the backend refuses for a reason other than being away.
        """
        # aclosing: a generator that is left by a cancellation in the body must not wait for the garbage collector.
        async with aclosing(trio_util.periodic(self._interval)) as beats:
            async for _ in beats:
                await self._beat()

    async def _beat(self) -> None:
        setup = self._setup
        heartbeat = self.take()
        if setup.signals.worker_heartbeat:
            event = WorkerHeartbeatSent(
                worker=setup.worker_id, queues=setup.queues, occurred_at=setup.now(), heartbeat=heartbeat
            )
            self._pump.put(setup.signals.worker_heartbeat, event)
        put = partial(setup.backend.put_heartbeat, heartbeat, ttl=self._interval * _TTL_BEATS)
        try:
            await setup.call("put_heartbeat", put)
        except StoreUnavailableError as error:
            _logger.warning("cannot write the heartbeat: %s", error)

    async def end(self) -> None:
        """Withdraw the heartbeat, so that nobody takes the worker for a dead one.

        Cancellation: it may or may not be withdrawn; it ends by itself.
        """
        try:
            await self._setup.call(
                "remove_heartbeat", partial(self._setup.backend.remove_heartbeat, self._setup.worker_id)
            )
        except StoreUnavailableError as error:
            _logger.warning("cannot withdraw the heartbeat: %s", error)
