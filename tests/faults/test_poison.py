"""A task that takes its process with it."""

from __future__ import annotations

import pytest
import trio

from tests.faults.processes import child
from tests.faults.rig import Stores
from tests.faults.worker_program import work


async def supervise(rig, stores: Stores, **options) -> int:
    """Start a worker process again and again until the queue is empty; how often it died."""
    deaths = 0
    while (await stores.broker.stats("default")).unfinished:
        async with child(work, rig.plan(until_drained=True, **options)) as process:
            deaths += await process.wait() != 0
        assert deaths < 10
        await trio.lowlevel.checkpoint()
    return deaths


async def test_poison_pill(rig):
    """G7, G8: a task that ends its process is put with the dead letters after its strikes; others go on."""
    async with rig.opened() as stores:
        tasks = stores.tasks
        first, poison, *others = await stores.accept(
            tasks.quick.bind(), tasks.exits.bind(), *[tasks.quick.bind() for _ in range(5)], tasks.recovers.bind()
        )
        assert await supervise(rig, stores, concurrency=1, prefetch=0) == 2
        letter = await stores.broker.get_dead_letter("default", poison)
        assert (letter.reason, letter.strikes, letter.attempt) == ("poison", 2, 0)
        result = await stores.stem.wait_for_task(poison, 0)
        assert (result.state.value, result.reason) == ("failed", "poison")
        for task_id in (first, *others):
            assert (await stores.stem.wait_for_task(task_id, 0)).state.value == "succeeded"
        assert len(rig.ledger.entries("started", id=poison)) == 2
        await stores.check()


async def test_neighbours_of_a_poison_pill(rig):
    """G1, G7: what a worker holds when a task ends its process is not lost, and nothing is spent but a strike."""
    async with rig.opened() as stores:
        tasks = stores.tasks
        ids = await stores.accept(tasks.exits.bind(), *[tasks.sleeps.bind(0.1) for _ in range(12)])
        await supervise(rig, stores, concurrency=4, prefetch=2)
        dead = [letter.envelope.id for letter in await stores.broker.list_dead_letters("default")]
        assert dead == ids[:1]
        assert {entry["attempt"] for entry in rig.ledger.entries("started")} == {0}
        await stores.check()


@pytest.mark.xfail(strict=True, reason="who is with a poison pill in its worker each time is taken for one itself")
async def test_neighbours_with_as_few_strikes(rig):
    """G7: a poison pill takes nobody along whose strikes are the same number as its own."""
    async with rig.opened() as stores:
        tasks = stores.tasks
        neighbours = [tasks.sleeps.with_options(max_strikes=2).bind(0.1) for _ in range(3)]
        ids = await stores.accept(tasks.exits.bind(), *neighbours)
        await supervise(rig, stores, concurrency=4, prefetch=0)
        await stores.check()
        dead = [letter.envelope.id for letter in await stores.broker.list_dead_letters("default")]
        assert dead == ids[:1]
