"""A producer process that dies between any two steps with its stores."""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial

import pytest

from tests.faults.plans import numbered
from tests.faults.processes import child
from tests.faults.producer_program import IDS, produce
from tests.faults.rig import Rig, play_all

AT_A_TIME = 8


async def undisturbed(rig: Rig, *, joint: bool) -> list[str]:
    """The points that the producer passes, in their order."""
    async with rig.opened() as stores:
        async with child(produce, rig.plan(joint=joint)) as process:
            assert await process.wait() == 0, process.output()
        assert len(rig.ledger.ids("accepted")) == len(IDS)
        await stores.rescue()
        await stores.check()
    [stopped] = rig.ledger.entries("stopped")
    return numbered(stopped["trace"])


async def killed_at(rig: Rig, point: str, *, joint: bool) -> None:
    """A producer that is killed at this point, another one that repeats what it did, and a worker all the while."""
    async with rig.opened() as stores:
        async with child(produce, rig.plan(fault=f"{point}=kill", joint=joint)) as process:
            assert await process.wait() == -signal.SIGKILL, process.output()
        await rig.ledger.assert_visible(stores.broker, stores.backend)
        before = set(rig.ledger.ids("accepted"))
        await stores.rescue()
        await stores.check()
        # What was accepted was done; what was not may have been, once and whole.
        assert before <= set(rig.ledger.ids("effect"))
        async with child(produce, rig.plan(joint=joint)) as process:
            assert await process.wait() == 0, process.output()
        await stores.rescue()
        await stores.check()
    assert Counter(rig.ledger.ids("effect")) == Counter(f"{rig.prefix}-{name}" for name in IDS)


OPERATIONS = {
    "apart": ("broker.publish", "backend.record", "backend.get"),
    "as one": ("joint.publish",),
}
"""What a producer does with stores that are apart from each other, and with such that are one."""


@pytest.mark.parametrize("stores", OPERATIONS)
async def test_killed_between_any_two_steps(rig, stores):
    """G1, G2: whenever a producer is killed, an id that it was told is never lost, and it can repeat itself safely."""
    joint = stores == "as one"
    points = await undisturbed(rig.part("undisturbed"), joint=joint)
    steps = {point.partition("#")[0] for point in points}
    assert steps == {f"{operation}:{when}" for operation in OPERATIONS[stores] for when in ("before", "after")}
    await play_all(rig, points, partial(killed_at, joint=joint), at_a_time=AT_A_TIME)
