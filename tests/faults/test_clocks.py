"""Hosts whose clocks are wrong."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from stem_trio import Stem, StemSignals
from tests.faults.processes import child
from tests.faults.tasks import LEASE
from tests.faults.worker_program import SkewedClock, work

SKEW = 300.0


async def test_skewed_hosts(rig):
    """G4, G13: workers and producers whose clocks are five minutes ahead or behind hand out nothing early,

    take nothing away, and drop nothing as expired.
    """
    async with rig.opened() as stores, AsyncExitStack() as stack:
        for skew in (-SKEW, 0.0, SKEW):
            await stack.enter_async_context(child(work, rig.plan(clock_skew=skew, concurrency=4)))
        await rig.ledger.wait_for("ready", count=3)
        due = {}
        for skew in (-SKEW, 0.0, SKEW):
            stem = Stem(stores.broker, stores.backend, signals=StemSignals(), clock=SkewedClock(skew))
            for kind, options in (("quick", {"delay": 1.0}), ("quick", {"delay": 0.5}), ("recovers", {"delay": 1.5})):
                call = getattr(stores.tasks, kind).with_options(**options).bind()
                before = time.monotonic()
                [task_id] = await stores.tasks.accept(stem, call)
                due[task_id] = before + options["delay"]
        # Held for much longer than its lease, by one of them, while the others have nothing to do.
        held = [stores.tasks.sleeps.bind(2.5 * LEASE) for _ in range(6)]
        fresh = [stores.tasks.quick.with_options(expires=60.0).bind() for _ in range(6)]
        await stores.accept(*held, *fresh)
        await stores.drained()
        await rig.ledger.wait_for("finished", end="succeeded", count=9 + 12)
        for entry in rig.ledger.entries("started"):
            assert entry["at"] >= due.get(entry["id"], 0.0)
        assert {entry["token"] - entry["attempt"] for entry in rig.ledger.entries("started")} == {1}
        assert not rig.ledger.entries("finished", end="lease lost")
        assert len({entry["pid"] for entry in rig.ledger.entries("started")}) == 3
        await stores.check()
