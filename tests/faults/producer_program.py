"""A producer in a process of its own, which may end at a point between two steps with its stores."""

from __future__ import annotations

import random

import trio

from stem_trio import Stem, StemSignals
from tests.faults.joint import faulty
from tests.faults.ledger import Ledger
from tests.faults.plans import Plan
from tests.faults.stores import open_stores
from tests.faults.tasks import Tasks

IDS = ("one", "delayed", "first", "second", "third")


def produce(plan: Plan) -> None:
    """Enqueue the tasks of `IDS`, and write down what was accepted; the process has been started for this."""
    random.seed(plan.seed)
    trio.run(_main, plan, Ledger(plan.ledger))


async def _main(plan: Plan, ledger: Ledger) -> None:
    faults = plan.faults(ledger)
    quick = Tasks(ledger).quick

    def call(name: str, **options: object):
        return quick.with_options(task_id=f"{plan.prefix}-{name}", **options).bind()

    async with open_stores(plan.url, plan.prefix, backend_url=plan.backend_url) as (broker, backend):
        stem = Stem(*faulty(broker, backend, faults, joint=plan.joint), signals=StemSignals())
        for calls in (
            [call("one")],
            [call("delayed", delay=0.3)],
            # Two delays, hence two steps with the broker, of which the first may be all that happens.
            [call("first"), call("second", delay=0.2), call("third")],
        ):
            ledger.accepted(await stem.enqueue_many(calls))
    ledger.write("stopped", trace=faults.trace)
