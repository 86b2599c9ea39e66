"""Deep queues and long runs: what is held, in the worker and in the store, stays bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from stem_trio import task
from tests.faults.ledger import eventually
from tests.faults.rig import Rig
from tests.faults.server import running
from tests.faults.tasks import LEASE

TASKS = 20_000
BACKLOG = 1_000


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


async def test_slow_consumer(rig):
    """G4, G9: behind slow tasks a deep queue waits in the store; what was fetched ahead keeps its lease, at no cost."""
    async with rig.opened() as stores:
        # No more of them than any store hands out to one claim, which looks at them in the end.
        calls = [stores.tasks.sleeps.bind(1.6 * LEASE) for _ in range(100)]
        ids = await stores.stem.enqueue_many(calls)
        rig.ledger.accepted(ids)
        async with stores.worker(concurrency=2, prefetch=2) as worker:
            async with trio.open_nursery() as nursery:

                async def look() -> None:
                    while True:
                        assert worker.in_flight <= 4
                        assert (await stores.broker.stats("default")).leased <= 4
                        await trio.sleep(0.05)

                nursery.start_soon(look)
                await rig.ledger.wait_for("started", count=4)
                nursery.cancel_scope.cancel()
            await worker.shutdown("hard")
        # Those that were started first, and once; those that came after them had waited for more than a lease.
        assert sorted(rig.ledger.ids("started")[:2]) == ids[:2]
        assert sorted(rig.ledger.ids("started")) == ids[:4]
        assert {entry["token"] for entry in rig.ledger.entries("started")} == {1}
        assert not rig.ledger.ids("finished", end="lease lost")
        left = await stores.broker.claim(["default"], consumer="looks", limit=100, wait=0)
        finished = rig.ledger.ids("finished", end="succeeded")
        assert [delivery.envelope.id for delivery in left] == [task_id for task_id in ids if task_id not in finished]
        assert {(delivery.attempt, delivery.strikes) for delivery in left} == {(0, 0)}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to tell its own size")
async def test_many_tasks_in_little_memory(tmp_path, prefix, ledger, seed):
    """G9, G14: twenty thousand tasks go through a server with little memory; keys and memory do not grow with them."""

    @task(name="tiny", result_ttl=0.5)
    async def tiny(number: int) -> int:
        return number

    options = ("--maxmemory", "24mb", "--maxmemory-policy", "noeviction")
    async with running(tmp_path / "server", durable=False, options=options) as server:
        rig = Rig(server.url, prefix, ledger, seed)
        async with rig.opened() as stores:
            worker = stores.worker(tasks=[tiny], concurrency=200, prefetch=100)
            keys, sizes = [], []

            async def produce() -> None:
                for first in range(0, TASKS, BACKLOG // 2):
                    while first - worker.totals["succeeded"] > BACKLOG // 2:
                        await worker.wait_settled()
                    await stores.stem.enqueue_many([tiny.bind(number) for number in range(first, first + BACKLOG // 2)])
                    keys.append(await server.call("DBSIZE"))
                    sizes.append(resident())

            async with worker:
                await produce()
                await stores.drained(worker)
            assert worker.totals["succeeded"] == TASKS

            async def emptied() -> bool:
                return await server.call("DBSIZE") <= 12

            await eventually(emptied, "nothing is left of them", within=10)
    half = len(keys) // 2
    print(f"keys {max(keys[:half])} then {max(keys[half:])}; MB {sizes[half] / 1e6:.1f} then {sizes[-1] / 1e6:.1f}")
    assert max(keys[half:]) < 2 * max(keys[:half]) + BACKLOG
    assert max(keys) < TASKS / 2
    assert sizes[-1] < sizes[half] + 8_000_000
