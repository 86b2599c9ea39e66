"""The ledger itself: it survives its process, and it finds what it is there to find."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.ledger import Ledger
from tests.faults.plans import Plan, numbered
from tests.faults.processes import child

RUN = {"id": "t", "attempt": 0, "worker": "w"}


def write_and_die(plan: Plan) -> None:
    ledger = Ledger(plan.ledger)
    for number in range(100):
        ledger.write("started", id=f"{os.getpid()}-{number}")
    os.kill(os.getpid(), signal.SIGKILL)


async def test_entries_survive_the_process(ledger):
    """Everything that was written is there after a SIGKILL, in whole lines, also when several write at once."""
    plan = Plan(url="", prefix="", ledger=str(ledger.path))
    async with child(write_and_die, plan) as one, child(write_and_die, plan) as two:
        assert {await one.wait(), await two.wait()} == {-signal.SIGKILL}
        expected = {f"{process.pid}-{number}" for process in (one, two) for number in range(100)}
    assert set(ledger.ids("started")) == expected


def entry(what, token=1, **facts):
    return what, {**RUN, "token": token, **facts}


GOOD = [entry("started"), entry("effect"), entry("ended", end="returned"), entry("finished", end="succeeded")]


def test_nothing_to_find(ledger):
    """A task that was started, done and finished once is no problem."""
    for what, facts in GOOD:
        ledger.write(what, **facts)
    assert ledger.problems() == []


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([*GOOD, entry("finished", 2, end="failed")], "was finished 2 times"),
        ([*GOOD, entry("effect")], "2 effects of the winner"),
        ([entry("started"), entry("finished", end="succeeded")], "0 effects of the winner"),
        ([entry("started"), entry("started")], "delivery 1 was started 2 times"),
        ([entry("started", attempt=1)], "attempt 1 after 0 failures"),
        ([entry("started"), entry("started", 2), entry("ended", end="returned")], "began while 1 was at work"),
    ],
    ids=["two finishes", "two effects", "no effect", "two starts", "an attempt too many", "an overlap"],
)
def test_problems(ledger, entries, problem):
    """Each thing that must not be is found, and told by name."""
    for what, facts in entries:
        ledger.write(what, **facts)
    [found] = ledger.problems()
    assert problem in found


async def test_lost(rig):
    """An id that was accepted and is nowhere is a loss, and so is one that is left behind."""
    async with rig.opened() as stores:
        [task_id] = await stores.accept(stores.tasks.quick.bind())
        with pytest.raises(AssertionError, match=f"{task_id} is queued"):
            await stores.check()
        await rig.ledger.assert_visible(stores.broker, stores.backend)
        assert await stores.broker.purge("default") == 1
        with pytest.raises(AssertionError, match="are in no place"):
            await rig.ledger.assert_visible(stores.broker, stores.backend)


def test_numbered():
    """Points of the same name are told apart."""
    assert numbered(["a", "b", "a"]) == ["a#1", "b#1", "a#2"]
