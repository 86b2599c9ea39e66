"""Everything at once: workers that come and go over stores that fail at random, and a ledger that must add up."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from stem_trio import StoreUnavailableError, TaskContext, TaskState, WorkerLifecycleConfig, task
from stem_trio.testing.faults import Faults

OPERATIONS = (
    "broker.claim",
    "broker.renew",
    "broker.settle",
    "broker.subscribe",
    "broker.receive",
    "backend.record",
    "backend.put_heartbeat",
    "backend.remove_heartbeat",
)


def weather(faults, rng, bad):
    """Let each operation fail, hang, or take long, before or after it is done, with some probability, for as long as
    `bad` is true."""

    def maybe(when):
        async def act():
            if not bad() or rng.random() > 0.15:
                await trio.lowlevel.checkpoint()
                return
            kind = rng.randrange(4)
            if kind == 0:
                await trio.sleep(rng.random() * 3)
            elif kind == 1:
                await trio.sleep(rng.random() * 30)
            elif kind == 2:
                await trio.sleep_forever()
            else:
                raise StoreUnavailableError("bad weather", maybe_applied=when == "after")

        return act

    for operation in OPERATIONS:
        for when in ("before", "after"):
            faults.at(f"{operation}:{when}", maybe(when))


class PlannedError(Exception):
    """A failure that is planned."""


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_lost_and_nothing_runs_twice_at_a_time(rig, ledger, autojump_clock, seed):
    """G1, G4, G7, G11: whatever the stores and the workers do, in the end each task has had its effect and its status,

    no task ever ran twice at a time, and none had its effect twice but after its lease was lost. Replay one of them
    with ``pytest tests/worker/test_chaos.py -k "[<seed>]"``.
    """
    rng = random.Random(seed)
    stormy = True
    lost = []

    @task(name="work", max_retries=5, max_strikes=1000)
    async def work(context: TaskContext, plan: list[float]) -> str:
        with ledger.run(context):
            await trio.sleep(plan[min(context.attempt, len(plan) - 1)])
            if context.attempt < len(plan) - 1:
                raise PlannedError
        return context.id

    rig.signals.task_lease_lost.connect(lambda event: lost.append(event.task_id))
    handles = []

    async def produce():
        for _ in range(60):
            plan = [rng.choice([0, 0, 0.1, 1, 5, 40]) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
            lease = rng.choice([2, 10, 30, 30])
            delay = rng.choice([0, 0, 0, 1, 20])
            options = {"visibility_timeout": lease, "priority": rng.randrange(10), "delay": delay}
            handles.append(await rig.enqueue(work, plan, **options))
            await trio.sleep(rng.choice([0, 0, 0, 0.5, 3]))

    async def come_and_go(nursery):
        while stormy:
            faults = Faults()
            weather(faults, rng, lambda: stormy)
            lifecycle = WorkerLifecycleConfig(
                soft_grace_period=rng.choice([0, 1, 30]), force_shutdown_after=rng.choice([0.5, 10])
            )
            worker = rig.worker(
                work,
                faults=faults,
                lifecycle=lifecycle,
                concurrency=rng.choice([1, 3, 10]),
                prefetch=rng.choice([0, 2, 10]),
                store_timeout=rng.choice([1, 10]),
            )
            scope = await nursery.start(run, worker)
            await trio.sleep(rng.choice([3, 30, 100]))
            if rng.random() < 0.3:
                scope.cancel()
            else:
                await worker.shutdown(rng.choice(["warm", "soft", "hard"]))

    async def run(worker, *, task_status):
        with trio.CancelScope() as scope:
            try:
                async with trio.open_nursery() as inner:
                    await inner.start(worker.run)
                    task_status.started(scope)
            finally:
                lost.extend(held.id for held in worker._holdings)  # there was no time to settle these

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(come_and_go, nursery)
        await produce()
        await trio.sleep(200)
        stormy = False
        async with rig.worker(work, faults=Faults(), concurrency=20) as healthy:
            with trio.fail_after(3600):
                while sum(await rig.places()):
                    await trio.sleep(10)
                    assert (await rig.places())[3] == 0
        assert healthy.in_flight == 0

    ledger_ids = [handle.id for handle in handles]
    assert ledger.accepted == ledger_ids
    assert ledger.overlaps == []
    for handle in handles:
        status = await rig.status(handle)
        assert status.state is TaskState.SUCCEEDED
        assert bytes(status.value) == f'"{handle.id}"'.encode()
        assert ledger.effects[handle.id] >= 1
        runs = [run for run in ledger.runs if run.id == handle.id]
        # Attempts count failures alone, and never go back; a hand-out more than once at the same attempt is one that
        # was given back or lost.
        assert [run.attempt for run in runs] == sorted(run.attempt for run in runs)
        assert [run.deliveries for run in runs] == sorted({run.deliveries for run in runs})
        if ledger.effects[handle.id] > 1:
            assert handle.id in lost
