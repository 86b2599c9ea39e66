"""Signals to a worker process whose tasks are in a store that others see, too."""

from __future__ import annotations

import signal

from tests.faults.processes import child
from tests.faults.worker_program import work


async def test_second_signal_gives_back(rig):
    """G7, G10: SIGTERM drains, a second one gives the task back at once, with the same attempt and no strike."""
    async with rig.opened() as stores, child(work, rig.plan(grace=60.0)) as process:
        slow, waiting = await stores.accept(stores.tasks.sleeps.bind(60), stores.tasks.sleeps.bind(60))
        await rig.ledger.wait_for("started", count=2)
        process.kill(signal.SIGTERM)
        await rig.ledger.wait_for("stopping", mode="warm")
        # It drains: what comes now stays, what runs goes on.
        late = await stores.accept(stores.tasks.quick.bind())
        assert not rig.ledger.ids("ended")
        process.kill(signal.SIGTERM)
        assert await process.wait() == 0, process.output()
        assert sorted(rig.ledger.ids("finished", end="released")) == sorted([slow, waiting])
        assert rig.ledger.ids("ended", end="cancelled")
        places = await stores.broker.stats("default")
        assert (places.ready, places.leased) == (3, 0)
        for status in [await stores.backend.get(task_id) for task_id in (slow, waiting, *late)]:
            assert status.state.value == "queued"
        # No lease has to end for them to be had again.
        deliveries = await stores.broker.claim(["default"], consumer="looks", limit=3, wait=0)
        facts = {d.envelope.id: (d.attempt, d.deliveries, d.strikes) for d in deliveries}
        assert facts == {slow: (0, 2, 0), waiting: (0, 2, 0), late[0]: (0, 1, 0)}
    assert not [entry for entry in rig.ledger.entries("finished") if entry["end"] != "released"]


async def test_first_signal_lets_finish(rig):
    """G10: after one SIGTERM the task that runs is finished, with its result; the process ends with 0."""
    async with rig.opened() as stores, child(work, rig.plan()) as process:
        [slow] = await stores.accept(stores.tasks.sleeps.bind(1.5))
        await rig.ledger.wait_for("started")
        process.kill(signal.SIGTERM)
        assert await process.wait() == 0, process.output()
        assert rig.ledger.ids("finished", end="succeeded") == [slow]
        await stores.check()
        assert await stores.backend.list_heartbeats() == []
