"""A network between a worker and its stores that delays, cuts, swallows and tears what is sent."""

from __future__ import annotations

import random

import trio

from stem_trio import WorkerLifecycleConfig
from tests.faults.proxy import FaultProxy
from tests.faults.rig import Rig, play_all, proxied
from tests.faults.stores import on_a_server
from tests.faults.tasks import LEASE

pytestmark = on_a_server

CUTS = {
    "blackhole": lambda proxy: proxy.blackhole(),
    "blackhole-to-server": lambda proxy: proxy.blackhole(to_client=False),
    "blackhole-to-client": lambda proxy: proxy.blackhole(to_server=False),
    "down": lambda proxy: proxy.cut(),
}
"""Faults that part a worker from its stores."""


async def cut_off(rig: Rig, case: str) -> None:
    """A worker that is parted from its stores while it runs one task and has another to finish."""
    async with rig.opened() as direct, proxied(rig) as (proxy, through):
        async with through.opened() as far, far.worker(concurrency=2, prefetch=0) as parted:
            running, finishing = await direct.accept(
                direct.tasks.sleeps.bind(1.5 * LEASE), direct.tasks.sleeps.bind(0.4 * LEASE)
            )
            await rig.ledger.wait_for("started", count=2)
            CUTS[case](proxy)
            async with direct.worker() as other:
                await direct.drained(other)
                # Whatever was under way arrives now, late.
                proxy.heal()
                await rig.ledger.wait_for("finished", worker=parted.id, count=2)
                ends = {entry["id"]: entry["end"] for entry in rig.ledger.entries("ended", worker=parted.id)}
                assert ends == {running: "cancelled", finishing: "returned"}
                lost = rig.ledger.ids("finished", worker=parted.id, end="lease lost")
                winners = {entry["id"]: entry["token"] for entry in rig.ledger.entries("finished", end="succeeded")}
                assert winners[running] == 2
                if case == "blackhole-to-client" and winners.get(finishing) != 2:
                    # What it sent has arrived, and only the answer has not: nobody had to do it again.
                    assert not rig.ledger.ids("started", id=finishing, worker=other.id)
                else:
                    assert sorted(lost) == sorted([running, finishing])
                    assert winners == {running: 2, finishing: 2}
            # And it serves again.
            [again] = await direct.accept(direct.tasks.quick.bind())
            await rig.ledger.wait_for("finished", end="succeeded", id=again, worker=parted.id)
        await direct.check()


async def test_cut_off(rig):
    """G3, G4, G11: a worker that is parted from its stores cancels its tasks before anybody else gets them,

    what it sends too late is refused, and it serves again when the network does.
    """
    await play_all(rig, tuple(CUTS), cut_off, at_a_time=len(CUTS))


async def hampered(rig: Rig, case: str) -> None:
    """A worker and a producer behind a bad line, which does not keep them from their work."""
    async with rig.opened() as direct, proxied(rig) as (proxy, through):
        async with through.opened() as far, far.worker(concurrency=8) as worker:
            over = False

            async def keep_breaking() -> None:
                while not over:
                    await trio.sleep(0.15)
                    proxy.reset()

            async with trio.open_nursery() as nursery:
                if case == "reset":
                    nursery.start_soon(keep_breaking)
                elif case == "latency":
                    proxy.latency = 0.02
                elif case == "slices":
                    proxy.slice_size, proxy.slice_delay = 40, 0.0
                else:
                    proxy.limit = 1000
                for _ in range(2):
                    await far.accept_for_sure(*far.tasks.one_of_each())
                await direct.drained(worker)
                over = True
        await direct.check()
        assert len(proxy.attempts) > (6 if case in {"reset", "limit"} else 1)


async def test_hampered(rig):
    """G1, G11: a slow line, one that tears everything to pieces, and one that breaks again and again lose nothing."""
    await play_all(rig, ("latency", "slices", "reset", "limit"), hampered, at_a_time=4)


async def test_any_weather(rig, seed):
    """G1, G3, G4, G11: under faults at random on three lines at once nothing is lost, nothing counts twice,

    and no two workers are at one task at the same time.
    """
    chance = random.Random(seed)

    async def weather(proxy: FaultProxy) -> None:
        while True:
            proxy.heal()
            await trio.sleep(chance.uniform(0, 0.6))
            match chance.randrange(6):
                case 0:
                    proxy.reset()
                case 1:
                    proxy.cut()
                case 2:
                    proxy.blackhole(to_server=chance.random() < 0.5)
                case 3:
                    proxy.blackhole(to_client=False)
                case 4:
                    proxy.latency = chance.uniform(0, 0.1)
                case _:
                    proxy.slice_size, proxy.slice_delay = 20, 0.0005
            await trio.sleep(chance.uniform(0, 1.5 * LEASE))

    async with (
        rig.opened() as direct,
        proxied(rig) as (first_proxy, first),
        proxied(rig) as (second_proxy, second),
        first.opened() as one,
        second.opened() as two,
        one.worker(concurrency=4),
        two.worker(concurrency=4),
    ):
        async with trio.open_nursery() as nursery:
            for proxy in (first_proxy, second_proxy):
                nursery.start_soon(weather, proxy)
            for _ in range(12):
                patient = {"max_strikes": 1000}
                await direct.accept(
                    *(kind.with_options(**patient).bind() for kind in (direct.tasks.quick, direct.tasks.recovers)),
                    direct.tasks.sleeps.with_options(**patient).bind(chance.uniform(0, 1.5 * LEASE)),
                )
                await trio.sleep(chance.uniform(0, 0.6))
            nursery.cancel_scope.cancel()
        first_proxy.heal()
        second_proxy.heal()
        await direct.drained()
        await direct.check()


async def without_backend(rig: Rig, case: str) -> None:
    """A worker that cannot reach the result backend when its task has ended, and for two leases longer."""
    async with (
        rig.opened() as direct,
        proxied(rig) as (proxy, through),
        rig.opened(backend_url=through.url) as mixed,
        mixed.worker() as worker,
    ):
        [task_id] = await direct.accept(direct.tasks.sleeps.bind(0.3))
        await rig.ledger.wait_for("started")
        CUTS[case](proxy)
        [ended] = await rig.ledger.wait_for("ended", id=task_id)
        # For as long as two leases another one stands by to take it.
        claimed = await direct.broker.claim(["default"], consumer="looks", limit=1, wait=2.2 * LEASE)
        assert claimed == []
        assert (await direct.broker.stats("default")).leased == 1
        assert not (await direct.backend.get(task_id)).state.terminal
        proxy.heal()
        await direct.drained(worker)
        [finished] = rig.ledger.entries("finished")
        assert (finished["end"], finished["token"], ended["end"]) == ("succeeded", 1, "returned")
        assert rig.ledger.ids("started") == [task_id]
        await direct.check()


async def test_backend_away_at_the_finish(rig):
    """G6, G11: a task whose result cannot be stored is not settled; it is kept under lease, and is not run again."""
    await play_all(rig, ("down", "blackhole"), without_backend, at_a_time=2)


async def test_backend_away_and_the_worker_gone(rig):
    """G1, G6: a result that could not be stored is made anew: the task comes back when the worker has gone."""
    async with rig.opened() as direct, proxied(rig) as (proxy, through):
        async with rig.opened(backend_url=through.url) as mixed:
            [task_id] = await direct.accept(direct.tasks.quick.bind())
            proxy.cut()
            worker = mixed.worker(lifecycle=WorkerLifecycleConfig(force_shutdown_after=0.2))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.run)
                await rig.ledger.wait_for("ended", id=task_id)
                await worker.shutdown("hard")
        await rig.ledger.assert_visible(direct.broker, direct.backend)
        await direct.rescue()
        assert [entry["token"] for entry in rig.ledger.entries("finished", end="succeeded")] == [2]
        await direct.check()
