"""A worker as a guest: whose signals it takes, whom it shares its host with, and how its start may end."""

from __future__ import annotations

import signal

import anyio
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stem_trio import InMemoryBroker, InMemoryResultBackend, StemSignals, Worker, WorkerState, task
from stem_trio.clock import TrioClock
from stem_trio.testing.faults import Faults, FaultyBroker
from tests.app.support import BugError


@task(name="sleeps")
async def sleeps(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "slept"


async def never(_: object) -> None:
    """A listener that does not return."""
    await trio.sleep_forever()


@pytest.fixture
async def stores():
    """Two stores in memory."""
    async with InMemoryBroker(clock=TrioClock()) as broker, InMemoryResultBackend() as backend:
        yield broker, backend


def make_worker(stores, **options) -> Worker:
    broker, backend = stores
    return Worker(broker, backend, tasks=[sleeps], signals=StemSignals(), clock=TrioClock(), **options)


async def start_soon(worker: Worker, group) -> None:
    group.start_soon(worker.run)
    await worker.wait_ready()


STARTS = {
    "start_soon": start_soon,
    "start": lambda worker, group: group.start(worker.run),
    "worker.start": lambda worker, group: worker.start(group),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("host", [trio.open_nursery, anyio.create_task_group], ids=["nursery", "task group"])
async def test_signals_are_the_host_s(stores, autojump_clock, host, start):
    """A worker in somebody else's nursery leaves the handlers of signals alone."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    worker = make_worker(stores)
    async with host() as group:
        await start(worker, group)
        assert worker.state is WorkerState.RUNNING
        assert [signal.getsignal(number) for number in numbers] == before
        await worker.shutdown()


def test_signals_of_an_anyio_program():
    """A worker that anyio's main task awaits has the program's signals, and gives them back."""

    async def main() -> None:
        async with InMemoryBroker() as broker, InMemoryResultBackend() as backend:
            worker = make_worker((broker, backend))
            async with anyio.create_task_group() as group:

                async def stop() -> None:
                    await worker.wait_ready()
                    handlers.append(signal.getsignal(signal.SIGTERM))
                    await worker.shutdown()

                group.start_soon(stop)
                await worker.run()

    before = signal.getsignal(signal.SIGTERM)
    handlers: list = []
    anyio.run(main, backend="trio")
    assert handlers != [before]
    assert signal.getsignal(signal.SIGTERM) is before


async def test_several_workers_share_the_work(stores, autojump_clock):
    """G9: workers in one nursery take no more than each has slots for, and so share what there is."""
    workers = [make_worker(stores, concurrency=1, prefetch=0) for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for worker in workers:
            await worker.start(nursery)
        handles = [await sleeps.enqueue(workers[0].stem, 5) for _ in range(4)]
        assert [await handle.result() for handle in handles] == ["slept"] * 4
        assert trio.current_time() == 5
        for worker in workers:
            await worker.shutdown()
            assert worker.totals["succeeded"] == 1


async def test_start_that_is_cancelled(stores, autojump_clock):
    """Cancelling a start takes the worker along, as with anything that is started so."""
    worker = make_worker(stores)
    worker.stem.signals.worker_init.connect(never)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(3) as scope:
            await worker.start(nursery)
        assert scope.cancelled_caught
        assert not nursery.child_tasks
    assert worker.state is WorkerState.STOPPED
    assert trio.current_time() == 13  # the cleanup of a worker is bounded by `force_shutdown_after`


async def test_worker_that_cannot_start(stores, autojump_clock):
    """An error of a worker that is not ready yet comes out of its start."""
    faults = Faults()

    def fail() -> None:
        raise BugError

    faults.at("broker.subscribe:before", fail)
    worker = make_worker((FaultyBroker(stores[0], faults), stores[1]))
    with pytest.RaisesGroup(BugError):
        async with trio.open_nursery() as nursery:
            await worker.start(nursery)
            await trio.sleep_forever()


async def test_handlers_may_use_anyio(stores, autojump_clock):
    """Handlers use anyio as they like: task groups, scopes, events."""

    @task(name="fan")
    async def fan() -> list[int]:
        results: list[int] = []

        async def one(number: int) -> None:
            await anyio.sleep(number)
            results.append(number)

        with anyio.move_on_after(2.5):
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(one, number)
        return results

    worker = Worker(*stores, tasks=[fan], signals=StemSignals(), clock=TrioClock())
    async with worker:
        assert await (await fan.enqueue(worker.stem)).result() == [0, 1, 2]


async def test_waiting_to_be_ready(stores, autojump_clock):
    """`wait_ready` returns when the worker claims, or when it never will."""
    worker = make_worker(stores)
    ready = []

    async def wait() -> None:
        await worker.wait_ready()
        ready.append(worker.state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert ready == []
        await worker.start(nursery)
        await wait_all_tasks_blocked()
        await worker.shutdown()
        await wait()
    assert ready == [WorkerState.RUNNING, WorkerState.STOPPED]
