"""A worker in a process of its own, which may end or stand still at a point between two steps with its stores."""

from __future__ import annotations

import logging
import random

import trio

from stem_trio import StemSignals, SystemClock, Worker, WorkerLifecycleConfig
from tests.faults.joint import faulty
from tests.faults.ledger import Ledger
from tests.faults.plans import Plan
from tests.faults.scripts import comment_scripts, script_hashes
from tests.faults.stores import open_stores
from tests.faults.tasks import RETRY, Tasks


class SkewedClock:
    """A wall clock that is wrong.

    Args:
        skew: seconds by which it is ahead.
    """

    def __init__(self, skew: float) -> None:
        self._skew = skew

    def now(self) -> float:
        """Seconds since the epoch, and the skew."""
        return SystemClock().now() + self._skew


def work(plan: Plan) -> None:
    """Run the worker; the process has been started for this."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    random.seed(plan.seed)
    if plan.script_comment:
        comment_scripts(plan.script_comment)
    trio.run(_main, plan, Ledger(plan.ledger))


async def _main(plan: Plan, ledger: Ledger) -> None:
    faults = plan.faults(ledger)
    tasks = Tasks(ledger, faults)
    signals = StemSignals()
    ledger.listen(signals)
    signals.worker_ready.connect(lambda event: ledger.write("ready", worker=event.worker))
    signals.worker_stopping.connect(lambda event: ledger.write("stopping", mode=event.mode))
    async with open_stores(plan.url, plan.prefix, backend_url=plan.backend_url) as (broker, backend):
        worker = Worker(
            *faulty(broker, backend, faults, joint=plan.joint),
            tasks=tasks.all,
            concurrency=plan.concurrency,
            prefetch=plan.prefetch,
            retry_strategy=RETRY,
            signals=signals,
            heartbeat_interval=plan.heartbeat,
            clock=SkewedClock(plan.clock_skew),
            store_timeout=5.0,
            lifecycle=WorkerLifecycleConfig(soft_grace_period=plan.grace, install_signal_handlers=True),
        )
        async with trio.open_nursery() as nursery:
            if plan.until_drained:
                # On the store as it is: to look must not be one of the steps.
                nursery.start_soon(_shut_down_when_drained, worker, broker)
            await worker.run()
            nursery.cancel_scope.cancel()
    ledger.write("stopped", trace=faults.trace, scripts=sorted(script_hashes()))


async def _shut_down_when_drained(worker: Worker, broker) -> None:
    await worker.wait_ready()
    while (await broker.stats("default")).unfinished:  # noqa: ASYNC110 - the store has no event for it
        await trio.sleep(0.05)
    await worker.wait_told()
    await worker.shutdown()
