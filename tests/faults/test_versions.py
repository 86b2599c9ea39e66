"""Two versions of the program at work at the same time, as while one is being replaced by the other."""

from __future__ import annotations

import signal

from tests.faults.processes import child
from tests.faults.scripts import script_hashes
from tests.faults.stores import on_a_server
from tests.faults.worker_program import work

pytestmark = on_a_server


async def test_two_versions_of_the_scripts(rig):
    """G2: workers with scripts of different versions share a queue; neither replaces what the other one uses."""
    async with (
        rig.opened() as stores,
        child(work, rig.plan(concurrency=4)) as old,
        child(work, rig.plan(concurrency=4, script_comment="the next version")) as new,
    ):
        await rig.ledger.wait_for("ready", count=2)
        for _ in range(10):
            await stores.accept(*stores.tasks.one_of_each())
        await stores.drained()
        pids = {entry["pid"] for entry in rig.ledger.entries("started")}
        assert pids == {old.pid, new.pid}
        for process in (old, new):
            process.kill(signal.SIGTERM)
            assert await process.wait() == 0, process.output()
        hashes = [set(entry["scripts"]) for entry in rig.ledger.entries("stopped")]
        assert len(hashes) == 2
        assert not hashes[0] & hashes[1]
        assert script_hashes() in hashes
        await stores.check()
    assert len(rig.ledger.ids("effect")) == len(set(rig.ledger.ids("effect")))
