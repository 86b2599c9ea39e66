"""Whoever waits for a result, or for word from others, when the connection that brings it is gone."""

from __future__ import annotations

import trio

from stem_trio import Stem, StemSignals
from stem_trio.stores.redis import backend as backend_module
from stem_trio.testing.faults import Faults, FaultyBackend
from tests.faults.ledger import eventually
from tests.faults.rig import Stores, proxied
from tests.faults.stores import on_a_server
from tests.faults.tasks import LEASE

pytestmark = on_a_server


async def test_subscription_reset_while_waiting(rig):
    """G12: a result that comes while the connection for it is broken reaches whoever waits, without being asked for."""
    async with rig.opened() as direct, proxied(rig) as (proxy, through), through.opened() as far:
        [task_id] = await direct.accept(direct.tasks.quick.bind())
        faults = Faults()
        stem = Stem(far.broker, FaultyBackend(far.backend, faults), signals=StemSignals())
        results = []

        async def wait() -> None:
            results.append(await stem.wait_for_task(task_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await eventually(lambda: "backend.get:after" in faults.trace, "it waits to be told")
            proxy.cut()
            await direct.rescue()
            assert not results
            proxy.heal()
            # Less than the time after which a status is read again in any case.
            nursery.cancel_scope.deadline = trio.current_time() + 0.8 * backend_module._REREAD
        assert [result.state.value for result in results] == ["succeeded"]


async def test_subscription_that_hangs(rig, monkeypatch):
    """G12: a connection that is dead and does not know it keeps nobody waiting for ever: the status is read again."""
    monkeypatch.setattr(backend_module, "_REREAD", 1.0)
    async with rig.opened() as direct, proxied(rig) as (proxy, through), through.opened() as far:
        [task_id] = await direct.accept(direct.tasks.quick.bind())
        async with far.backend.watch(task_id) as watch:
            for link in proxy.newest(1):
                link.hang()
            await direct.rescue()
            with trio.fail_after(10):
                while not (await watch.changed()).state.terminal:
                    pass


async def test_subscription_renewed_late(rig):
    """G12: a result that comes after the connection was made anew, and before the subscription was, is not missed."""
    async with rig.opened() as direct, proxied(rig) as (proxy, through), through.opened() as far:
        [task_id] = await direct.accept(direct.tasks.quick.bind())
        async with far.backend.watch(task_id) as watch, trio.open_nursery() as nursery:

            async def follow() -> None:
                while not (await watch.changed()).state.terminal:
                    pass

            nursery.start_soon(follow)
            [former] = proxy.newest(1)
            proxy.hang_at = b"SUBSCRIBE"
            former.reset()
            await eventually(lambda: any(link.hangs for link in proxy.newest(10)), "a subscription that is under way")
            await direct.rescue()
            proxy.heal()
            with trio.fail_after(0.8 * backend_module._REREAD):
                while nursery.child_tasks:  # noqa: ASYNC110 - bounded, and what is waited for has no event
                    await trio.sleep(0.01)


async def test_control_after_a_reset(rig):
    """G8, G11: a worker whose connection for broadcasts was broken hears the next one: a task that runs is revoked."""
    async with (
        rig.opened() as direct,
        proxied(rig) as (proxy, through),
        through.opened() as far,
        far.worker() as worker,
    ):
        [task_id] = await direct.accept(direct.tasks.sleeps.with_options(visibility_timeout=30.0).bind(60))
        await rig.ledger.wait_for("started", id=task_id)
        proxy.reset()
        await revoked_in_the_end(direct, task_id, within=10)
        await direct.drained(worker)
        await direct.check()
    assert [entry["end"] for entry in rig.ledger.entries("ended")] == ["cancelled"]


async def test_control_on_a_connection_that_hangs(rig):
    """G11: a connection for broadcasts that is dead without knowing it is found out, and made anew."""
    async with (
        rig.opened() as direct,
        proxied(rig) as (proxy, through),
        through.opened(command_timeout=1.0) as far,
        far.worker() as worker,
    ):
        patient = direct.tasks.sleeps.with_options(visibility_timeout=60.0)
        [first, task_id] = await direct.accept(patient.bind(60), patient.bind(60))
        await rig.ledger.wait_for("started", count=2)
        await revoked_in_the_end(direct, first, within=10)
        for link in proxy.newest(proxy.links):
            link.hang()
        await revoked_in_the_end(direct, task_id, within=20)
        await direct.drained(worker)
        await direct.check()


async def test_revoked_while_nobody_listens(rig):
    """G8: a task that runs is cancelled also when its revocation is broadcast while the worker cannot hear it."""
    async with (
        rig.opened() as direct,
        proxied(rig) as (proxy, through),
        through.opened() as far,
        far.worker(),
    ):
        [first, task_id] = await direct.accept(direct.tasks.sleeps.bind(60), direct.tasks.sleeps.bind(2 * LEASE))
        await rig.ledger.wait_for("started", count=2)
        await revoked_in_the_end(direct, first, within=10)
        # Shorter than the lease, which is renewed all the while: the worker never loses the task.
        proxy.cut()
        assert await direct.stem.revoke(task_id)
        proxy.heal()
        await direct.drained()
        assert (await direct.stem.wait_for_task(task_id, 0)).state.value == "revoked"


async def revoked_in_the_end(stores: Stores, task_id: str, *, within: float) -> None:
    """Revoke a task that runs, again and again until its worker hears of it."""

    async def revoked() -> bool:
        await stores.stem.revoke(task_id)
        status = await stores.stem.status(task_id)
        return status is not None and status.state.value == "revoked"

    await eventually(revoked, "the task is revoked", within=within)
