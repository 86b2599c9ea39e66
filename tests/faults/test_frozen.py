"""A worker process that stands still for longer than its leases, and then goes on as if nothing had happened."""

from __future__ import annotations

import signal

import pytest
import trio

from tests.faults.processes import child
from tests.faults.rig import Rig, play_all
from tests.faults.tasks import LEASE
from tests.faults.worker_program import work

HELD = (
    # A quick task ends before the status of its being run is written: the first record is that of its end.
    "quick broker.claim:after#1",
    "quick handler.effect:before#1",
    "quick handler.effect:after#1",
    "quick backend.record:before#1",
    "quick backend.record:after#1",
    "quick broker.settle:before#1",
    "long backend.record:before#1",
    "long backend.record:after#1",
    "long broker.renew:before#1",
    "long broker.renew:after#1",
    "long broker.settle:before#1",
)
"""What the worker begins with, and a point at which it holds a lease, that ends while it stands still."""


async def frozen_at(rig: Rig, case: str) -> None:
    """A worker that stands still at this point, and another one that does its work in the meantime."""
    first, point = case.split()
    async with rig.opened() as stores:
        calls = [stores.tasks.quick.bind(), stores.tasks.long.bind()]
        ids = await stores.accept(*(calls if first == "quick" else reversed(calls)))
        async with child(work, rig.plan(concurrency=1, prefetch=1, fault=f"{point}=stop")) as frozen:
            await rig.ledger.wait_for("struck")
            async with stores.worker() as second:
                # Both tasks, except for what the frozen one had finished before.
                await stores.drained(second)
                frozen_done = {entry["id"] for entry in rig.ledger.entries("finished", end="succeeded", pid=frozen.pid)}
                finished = rig.ledger.ids("finished", end="succeeded")
                assert sorted(finished) == sorted(ids)
                # A status as the second worker wrote it, and not to be changed any more.
                before = [await stores.backend.get(task_id) for task_id in ids]
                frozen.kill(signal.SIGCONT)
                # Whatever it held, it finds that it has lost it, and goes on to serve.
                await rig.ledger.wait_for("finished", end="lease lost", pid=frozen.pid)
                assert [await stores.backend.get(task_id) for task_id in ids] == before
                assert rig.ledger.ids("finished", end="succeeded") == finished
                assert set(rig.ledger.ids("finished", end="lease lost", pid=frozen.pid)).isdisjoint(frozen_done)
            again = await stores.accept(stores.tasks.quick.bind())
            await rig.ledger.wait_for("finished", end="succeeded", id=again[0], pid=frozen.pid)
            frozen.kill(signal.SIGTERM)
            assert await frozen.wait() == 0, frozen.output()
        await stores.check(frozen=True)


async def test_frozen_for_longer_than_a_lease(rig):
    """G3, G4, G5: a worker that stands still loses its tasks to another one, once; what it sends later is refused,

    nothing that it does takes a task back, and it goes on with others.
    """
    await play_all(rig, HELD, frozen_at, at_a_time=len(HELD))


LATE = (
    "apart broker.settle:before#1",
    "apart backend.record:before#2",
    "apart broker.renew:before#1",
    "as-one joint.settle:before#1",
)
"""Whether the stores write as one, and a point of which the call is sent after another worker has got the task."""


async def woken_while_another_is_at_work(rig: Rig, case: str) -> None:
    """A worker that stands still at this point, and goes on while another one runs the task."""
    stores_are, point = case.split()
    async with rig.opened() as stores:
        [task_id] = await stores.accept(stores.tasks.sleeps.bind(0.9 * LEASE))
        plan = rig.plan(concurrency=1, prefetch=0, fault=f"{point}=stop", joint=stores_are == "as-one")
        async with child(work, plan) as frozen:
            await rig.ledger.wait_for("struck")
            async with stores.worker() as second:
                await rig.ledger.wait_for("started", worker=second.id)
                frozen.kill(signal.SIGCONT)
                await rig.ledger.wait_for("finished", end="lease lost", pid=frozen.pid)
                # The other one has it all the same, undisturbed, and nobody has said that it is over.
                assert not (await stores.stem.status(task_id)).state.terminal
                assert not rig.ledger.entries("ended", worker=second.id)
                await stores.drained(second)
            [winner] = rig.ledger.entries("finished", end="succeeded")
            assert (winner["worker"], winner["token"]) == (second.id, 2)
            frozen.kill(signal.SIGTERM)
            assert await frozen.wait() == 0, frozen.output()
        await stores.check(frozen=True)


async def test_woken_while_another_is_at_work(rig):
    """G3, G4, G5: what a worker sends that stood still for too long does nothing to the one that has its task now."""
    await play_all(rig, LATE, woken_while_another_is_at_work, at_a_time=len(LATE))


@pytest.mark.parametrize("point", ["broker.settle:after#1", "broker.claim:before#1"])
async def test_frozen_without_a_lease(rig, point):
    """G3, G4: a worker that stands still after it has settled, or before it has claimed, has lost nothing by it."""
    async with rig.opened() as stores:
        [task_id] = await stores.accept(stores.tasks.quick.bind())
        async with child(work, rig.plan(concurrency=1, prefetch=0, fault=f"{point}=stop")) as frozen:
            await rig.ledger.wait_for("struck")
            began = trio.current_time()
            if point.startswith("broker.claim"):
                async with stores.worker() as second:
                    await stores.drained(second)
            await trio.sleep_until(began + 1.2 * LEASE)
            frozen.kill(signal.SIGCONT)
            await rig.ledger.wait_for("finished", end="succeeded", id=task_id)
            frozen.kill(signal.SIGTERM)
            assert await frozen.wait() == 0, frozen.output()
        await stores.check(frozen=True)
        assert rig.ledger.ids("effect") == [task_id]
    assert not rig.ledger.entries("finished", end="lease lost")
