"""A worker process that dies by SIGKILL, in the middle of a run and between any two steps with its stores."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest
import trio

from tests.faults.plans import numbered
from tests.faults.processes import child
from tests.faults.rig import Rig, play_all
from tests.faults.worker_program import work

AT_A_TIME = 12
"""Processes side by side. Most of their time they wait, for a lease to end."""


async def test_killed_in_mid_run(rig):
    """G1, G4, G7: the task of a worker that is killed runs again when its lease has ended, its attempts unspent."""
    async with rig.opened() as stores, child(work, rig.plan()) as process:
        [task_id] = await stores.accept(stores.tasks.sleeps.bind(30))
        await rig.ledger.wait_for("started")
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        await rig.ledger.assert_visible(stores.broker, stores.backend)
        # The same task again, by a worker that has a shorter way of doing it.
        async with stores.worker() as worker:
            [_, second] = await rig.ledger.wait_for("started", count=2, id=task_id)
            assert (second["attempt"], second["token"]) == (0, 2)
            assert second["worker"] == worker.id
            assert await stores.stem.revoke(task_id)
            await stores.drained(worker)
        assert rig.ledger.ids("finished", end="revoked") == [task_id]
        await stores.check()


async def undisturbed(rig: Rig, **options: Any) -> list[str]:
    """The points that a worker passes which does one task of each kind, in their order."""
    async with rig.opened() as stores:
        await stores.accept(*stores.tasks.one_of_each())
        async with child(work, rig.plan(until_drained=True, **options)) as process:
            assert await process.wait() == 0, process.output()
        await stores.check()
    # Nothing was disturbed, so nothing was done twice.
    assert len(rig.ledger.ids("effect")) == len(set(rig.ledger.ids("effect"))) == 6
    [stopped] = rig.ledger.entries("stopped")
    return numbered(stopped["trace"])


async def killed_at(rig: Rig, point: str, **options: Any) -> bool:
    """The same with a worker that is killed at this point, and a healthy one after it; whether it came to that."""
    async with rig.opened() as stores:
        await stores.accept(*stores.tasks.one_of_each())
        async with child(work, rig.plan(until_drained=True, fault=f"{point}=kill", **options)) as process:
            code = await process.wait()
            assert code in {0, -signal.SIGKILL}, process.output()
        await rig.ledger.assert_visible(stores.broker, stores.backend)
        await stores.rescue()
        await stores.check()
    return code != 0


async def killed_at_each(rig: Rig, points: list[str], **options: Any) -> None:
    """Play all of these points. One that depends on how fast the machine is may not come again."""
    missed = []

    async def play(part: Rig, point: str) -> None:
        if not await killed_at(part, point, **options):
            missed.append(point)

    await play_all(rig, points, play, at_a_time=AT_A_TIME)
    print(f"{len(points)} points, of which {len(missed)} were not reached: {missed}")
    # Of each step the first always comes.
    assert not [point for point in missed if point.endswith("#1")]
    assert len(missed) < len(points) / 2


def expected(*operations: str) -> set[str]:
    """Both points of each operation."""
    return {f"{operation}:{when}" for operation in operations for when in ("before", "after")}


@pytest.mark.timeout(180)
async def test_killed_between_any_two_steps(rig):
    """G1, G3, G6, G7: between whichever two steps a worker is killed, nothing is lost and nothing counts twice."""
    points = await undisturbed(rig.part("undisturbed"))
    assert {point.partition("#")[0] for point in points} >= expected(
        "broker.claim",
        "broker.renew",
        "broker.settle",
        "broker.publish",
        "broker.subscribe",
        "backend.record",
        "backend.get",
        "backend.put_heartbeat",
        "backend.remove_heartbeat",
        "handler.effect",
    )
    await killed_at_each(rig, points)


async def test_killed_where_stores_are_one(rig):
    """G1, G2, G6: the same where a task is settled and its status written in one step, killed before and after each."""
    points = await undisturbed(rig.part("undisturbed"), joint=True)
    points = [point for point in points if point.startswith("joint.")]
    assert {point.partition("#")[0] for point in points} == expected("joint.publish", "joint.settle")
    await killed_at_each(rig, points, joint=True)


async def test_killed_at_any_moment(rig):
    """G1, G3, G7: three workers in one place are killed again and again in the midst of whatever they do, a call to

    the store included, and replaced; nothing is lost, nothing counts twice, and the place stays as good as it was.
    """
    workers, lives = 3, 4
    gone = 0

    async def live_and_die(number: int) -> None:
        nonlocal gone
        chance = random.Random(f"{rig.seed}-{number}")
        for _ in range(lives):
            # Apart, a child could end between the two steps in which a parent that is run again enqueues it again.
            async with child(work, rig.plan(concurrency=4, joint=True)) as process:
                await rig.ledger.wait_for("ready", pid=process.pid)
                await trio.sleep(chance.uniform(0.0, 0.3))
                assert process.alive, process.output()
                process.kill()
                assert await process.wait() == -signal.SIGKILL, process.output()
        gone += 1

    async with rig.opened() as stores:
        tasks = stores.tasks
        kinds = [tasks.quick, tasks.quick, tasks.recovers, tasks.parent]
        # Whoever is with a worker when it dies gets a strike, and some are so more than once.
        calls = [kind.with_options(max_strikes=100).bind() for kind in kinds]
        # Enough of these for each worker to have some at any moment.
        calls += [tasks.sleeps.with_options(max_strikes=100).bind(0.1) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for number in range(workers):
                nursery.start_soon(live_and_die, number)
            while gone < workers:
                await stores.accept(*calls)
                await trio.sleep(0.01)
        await stores.rescue(concurrency=20)
        await stores.check()
        assert not await stores.broker.list_dead_letters("default")
    accepted = set(rig.ledger.ids("accepted"))
    assert accepted <= set(rig.ledger.ids("effect"))
    # Some of them did strike a worker that had tasks.
    again = [entry for entry in rig.ledger.entries("started") if entry["token"] > entry["attempt"] + 1]
    print(f"{len(accepted)} tasks, of which {len(again)} runs were of such as had been with a worker that died")
    assert again
