"""Writes, behind the work, that tasks are running and how far they are."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, final

import trio

from ..errors import StoreUnavailableError
from ..settlement import running_status
from .held import Phase
from .setup import Backoff

if TYPE_CHECKING:
    from .held import Held
    from .setup import Setup

__all__ = ["StatusRecorder"]

_logger = logging.getLogger(__name__)


@final
class StatusRecorder:
    """Keeps the statuses of running tasks written, in batches.

    A handler does not wait for it. A task that ends before its running status is written never has one written: the
    end, which the settler writes, is newer anyhow. When the backend is away the newest state of each task is kept and
    written once it is back.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._dirty: dict[Held, None] = {}
        self._kick = trio.Event()

    def put(self, held: Held) -> None:
        """Have the running status of a delivery written."""
        self._dirty[held] = None
        if not self._kick.is_set():
            self._kick.set()

    async def run(self) -> None:
        """Write statuses as they come, for ever.

        Cancellation: what is not written stays unwritten; ends are the settler's to write.

        Raises:
            StoreError: the backend refuses for a reason other than being away.
        """
        backoff = Backoff()
        while True:
            await self._kick.wait()
            # One step more, so that handlers which end at once do so before their running status is written.
            await trio.lowlevel.checkpoint()
            self._kick = trio.Event()
            dirty, self._dirty = self._dirty, {}
            batch = [held for held in dirty if held.phase is Phase.RUNNING]
            if not batch:
                continue
            try:
                await self._write(batch)
                backoff.reset()
            except StoreUnavailableError as error:
                _logger.warning("cannot record %d running task(s), will try again: %s", len(batch), error)
                for held in batch:
                    self.put(held)
                await trio.sleep(backoff.next())

    async def _write(self, batch: list[Held]) -> None:
        setup = self._setup
        now = setup.clock.now()
        statuses = [
            running_status(
                held.delivery,
                now=now,
                worker=setup.worker_id,
                started_at=held.started_at if held.started_at is not None else now,
                progress=held.progress,
            )
            for held in batch
        ]
        await setup.call("record", partial(setup.backend.record, statuses))
