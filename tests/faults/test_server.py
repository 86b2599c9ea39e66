"""A server that is killed and comes back, with everything that it had or with nothing, or forgets its scripts."""

from __future__ import annotations

import signal

import pytest
import trio

from tests.faults.processes import child
from tests.faults.rig import Rig
from tests.faults.worker_program import work


@pytest.fixture
def durable(durable_server, prefix, ledger, seed):
    """A place on a server that keeps everything."""
    return Rig(durable_server.url, prefix, ledger, seed)


@pytest.fixture
def forgetful(own_server, prefix, ledger, seed):
    """A place on a server that keeps nothing."""
    return Rig(own_server.url, prefix, ledger, seed)


async def test_killed_with_its_data(durable, durable_server):
    """G1, G11: a server that is killed under load and started again has lost nothing that was accepted,

    what was under way is finished by who has it, and the same worker goes on.
    """
    async with durable.opened() as stores, child(work, durable.plan(concurrency=8)) as process:
        patient = stores.tasks.sleeps.with_options(visibility_timeout=20.0)
        [under_way] = await stores.accept(patient.bind(2.0))
        await durable.ledger.wait_for("started", id=under_way)
        over = False

        async def produce() -> None:
            number = 0
            kinds = [stores.tasks.quick] * 8 + [stores.tasks.recovers, stores.tasks.long]
            while not over:
                number += 1
                await stores.accept_for_sure(kinds[number % len(kinds)].bind())
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            for _ in range(2):
                before = len(durable.ledger.ids("finished"))
                await durable.ledger.wait_for("finished", count=before + 20)
                await durable_server.kill()
                await trio.sleep(0.2)
                await durable_server.start()
            before = len(durable.ledger.ids("finished"))
            await durable.ledger.wait_for("finished", count=before + 20)
            over = True
        await stores.drained()
        process.kill(signal.SIGTERM)
        assert await process.wait() == 0, process.output()
        assert [entry["token"] for entry in durable.ledger.entries("finished", id=under_way)] == [1]
        await stores.check()


async def test_killed_without_its_data(forgetful, own_server):
    """G3, G11: after a server that lost everything a worker goes on; what it had is refused, and it says so."""
    ledger = forgetful.ledger
    async with forgetful.opened() as stores, child(work, forgetful.plan(concurrency=4)) as process:
        sleeps = stores.tasks.sleeps
        renewed, finishing = await stores.accept(
            sleeps.bind(60), sleeps.with_options(visibility_timeout=60.0).bind(1.5)
        )
        await ledger.wait_for("started", count=2)
        await own_server.kill()
        await own_server.start(empty=True)
        # One learns of it by its renewal, and is cancelled; the other when its end is refused.
        await ledger.wait_for("finished", end="lease lost", id=renewed)
        await ledger.wait_for("finished", end="lease lost", id=finishing)
        assert [entry["end"] for entry in ledger.entries("ended", id=renewed)] == ["cancelled"]
        assert [entry["end"] for entry in ledger.entries("ended", id=finishing)] == ["returned"]
        # Everything works again: tasks, results, and what is broadcast.
        [quick, recovers, revoked] = await stores.accept(
            stores.tasks.quick.bind(), stores.tasks.recovers.bind(), sleeps.bind(60)
        )
        for task_id in (quick, recovers):
            assert (await stores.stem.wait_for_task(task_id, 20)).state.value == "succeeded"
        await ledger.wait_for("started", id=revoked)
        assert await stores.stem.revoke(revoked)
        assert (await stores.stem.wait_for_task(revoked, 20)).state.value == "revoked"
        assert process.alive
        process.kill(signal.SIGTERM)
        assert await process.wait() == 0, process.output()
    assert not ledger.problems()
    assert len(ledger.entries("ready")) == 1
    assert {entry["end"] for entry in ledger.entries("finished", id=finishing)} == {"lease lost"}


async def test_scripts_flushed(forgetful, own_server):
    """G2, G11: a server that forgets its scripts, again and again under load, is taught them again; nothing is lost."""
    async with forgetful.opened() as stores, child(work, forgetful.plan(concurrency=8, prefetch=4)) as process:
        over = False
        flushed = 0

        async def flush() -> None:
            nonlocal flushed
            while not over:
                await own_server.call("SCRIPT", "FLUSH")
                flushed += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            for _ in range(25):
                await stores.accept(*stores.tasks.one_of_each())
            await stores.drained()
            over = True
        assert flushed > 10
        process.kill(signal.SIGTERM)
        assert await process.wait() == 0, process.output()
        await stores.check()
    assert len(forgetful.ledger.ids("effect")) == len(set(forgetful.ledger.ids("effect")))
