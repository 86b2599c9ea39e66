"""G6: result first, then settlement; and what becomes of both when a store is away, slow, or broken."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from stem_trio import (
    FixedRetryStrategy,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TaskContext,
    TaskState,
    WorkerLifecycleConfig,
    task,
)
from stem_trio.outcome import Complete, Interrupted, Succeeded
from stem_trio.testing.faults import Faults
from stem_trio.worker.held import Held, Phase

GONE = (0, 0, 0, 0)
WRITES = ("backend.record:before", "backend.record:after", "broker.settle:before", "broker.settle:after")


def counts(worker):
    """What a worker has counted, without what it has not."""
    return {name: count for name, count in worker.totals.items() if count}


def writes(faults):
    """The points of record and settle that were reached, in order."""
    return [point for point in faults.trace if point in WRITES]


@pytest.fixture
def quick(ledger):
    """A task that is done at once."""

    @task(name="quick", max_retries=3)
    async def quick(context: TaskContext) -> str:
        with ledger.run(context):
            return "done"

    return quick


# --- the order ----------------------------------------------------------------------------------------------------


async def test_result_first_then_settlement(rig, quick, autojump_clock):
    """G6: a result is recorded, and only then is the task deleted."""
    handle = await rig.enqueue(quick)
    seen = []

    async def look():
        seen.append(((await rig.status(handle)).state, await rig.places()))

    rig.faults.at("broker.settle:before", look)

    async with rig.worker(quick):
        await handle.result(timeout=1)
    assert writes(rig.faults) == list(WRITES)
    assert seen == [(TaskState.SUCCEEDED, (0, 0, 1, 0))]


async def test_released_first_then_recorded(rig, autojump_clock):
    """To give a task back needs no word of the backend: others wait for it, so the broker is told first."""

    @task(name="endless")
    async def endless() -> None:
        await trio.sleep_forever()

    handle = await rig.enqueue(endless)
    async with rig.worker(endless) as worker:
        await trio.testing.wait_all_tasks_blocked()
        rig.faults.trace.clear()
        await worker.shutdown("hard")
    assert writes(rig.faults) == ["broker.settle:before", "broker.settle:after", *WRITES[:2]]
    assert (await rig.status(handle)).state is TaskState.QUEUED


async def test_released_although_the_backend_is_away(rig, autojump_clock, caplog):
    """G10, G11: tasks are given back with the backend away; that they were cannot be recorded, and is logged."""

    @task(name="endless")
    async def endless() -> None:
        await trio.sleep_forever()

    handle = await rig.enqueue(endless)
    async with rig.worker(endless) as worker:
        await trio.testing.wait_all_tasks_blocked()
        rig.faults.fail("backend.record")
        await worker.shutdown("hard")
    assert await rig.places() == (1, 0, 0, 0)
    assert counts(worker) == {"released": 1}
    assert "1 task(s) were given back, but that could not be recorded" in caplog.text
    assert (await rig.status(handle)).state is TaskState.RUNNING


async def test_releases_do_not_wait_for_results(rig, autojump_clock):
    """Releases go through although results of the same batch cannot be recorded."""

    @task(name="finishing")
    async def finishing() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "finished at the last moment"

    @task(name="waiting")
    async def waiting() -> None:
        await trio.sleep_forever()

    lifecycle = WorkerLifecycleConfig(force_shutdown_after=5)
    handle = await rig.enqueue(finishing)
    await rig.enqueue_many(waiting, 3)
    async with rig.worker(finishing, waiting, lifecycle=lifecycle) as worker:
        await trio.testing.wait_all_tasks_blocked()
        rig.faults.fail("backend.record")
        await worker.shutdown("hard")
    assert await rig.places() == (3, 0, 1, 0)
    assert counts(worker) == {"released": 3}
    assert (await rig.status(handle)).state is TaskState.RUNNING


# --- in batches ---------------------------------------------------------------------------------------------------


async def test_runs_that_end_together_are_settled_together(rig, autojump_clock):
    """A hundred runs that end at the same moment cost few calls: the batch is whatever has ended meanwhile."""
    go = trio.Event()

    @task(name="together")
    async def together() -> None:
        await go.wait()

    ids = await rig.enqueue_many(together, 100)
    async with rig.worker(together, concurrency=100) as worker:
        await trio.sleep(1)
        rig.faults.trace.clear()
        go.set()
        for task_id in ids:
            await rig.stem.wait_for_task(task_id, timeout=1)
        await trio.testing.wait_all_tasks_blocked()
        assert len(writes(rig.faults)) <= 3 * len(WRITES)
    assert counts(worker) == {"succeeded": 100}


async def test_slow_store_makes_larger_batches(rig, quick, autojump_clock):
    """With a store that takes a second for each call, a thousand tasks do not take a thousand of them."""
    await rig.enqueue_many(quick, 1000)
    for operation in ("backend.record", "broker.settle"):
        rig.faults.at(f"{operation}:before", partial(trio.sleep, 1))
    began = trio.current_time()
    async with rig.worker(quick, concurrency=100, prefetch=100) as worker:
        while worker.totals["succeeded"] < 1000:
            await worker.wait_settled()
    assert trio.current_time() - began <= 30
    rig.ledger.assert_exactly_once()


# --- the backend is away ------------------------------------------------------------------------------------------


async def test_backend_away_at_the_finish(rig, ledger, quick, autojump_clock):
    """G6, G11: until the backend is back nothing is settled, the lease is renewed, and the handler not run again."""
    handle = await rig.enqueue(quick, visibility_timeout=10)
    rig.faults.fail("backend.record")
    async with rig.worker(quick) as first:
        await trio.testing.wait_all_tasks_blocked()
        async with rig.worker(quick, faults=Faults()):  # would run it, were it ever given the chance
            await trio.sleep(300)
            assert "broker.settle:before" not in rig.faults.trace
            assert rig.faults.trace.count("broker.renew:after") >= 80
            assert first.in_flight == 1
            rig.faults.clear()
            assert await handle.result(timeout=6) == "done"
    assert [run.deliveries for run in ledger.runs] == [1]
    ledger.assert_exactly_once()


async def test_backend_away_stops_claiming_at_capacity(rig, ledger, quick, autojump_clock):
    """G9, G11: what waits to be recorded takes its place; a worker over a dead backend does not run the whole queue."""
    ids = await rig.enqueue_many(quick, 100)
    rig.faults.fail("backend.record")
    async with rig.worker(quick, concurrency=4, prefetch=2) as worker:
        await trio.sleep(600)
        assert worker.in_flight == 6
        assert len(ledger.runs) == 6
        rig.faults.clear()
        for task_id in ids:
            await rig.stem.wait_for_task(task_id, timeout=10)
    ledger.assert_exactly_once()


async def test_record_that_hangs(rig, ledger, quick, autojump_clock):
    """A record that does not return is given up after `store_timeout`, and made again: writing twice is harmless."""
    handle = await rig.enqueue(quick)
    rig.faults.hang("backend.record", times=1)
    began = trio.current_time()
    async with rig.worker(quick, store_timeout=4) as worker:
        assert await handle.result(timeout=20) == "done"
    assert 4 < trio.current_time() - began < 4.2
    assert counts(worker) == {"succeeded": 1}
    ledger.assert_exactly_once()


async def test_record_that_fails_after_it_was_made(rig, ledger, quick, autojump_clock):
    """A record that was made and reported as failed is made again, with the same version."""
    rig.listen()
    handle = await rig.enqueue(quick)
    rig.faults.fail("backend.record", when="after", times=2)
    async with rig.worker(quick) as worker:
        await handle.result(timeout=20)
    assert await rig.places() == GONE
    assert counts(worker) == {"succeeded": 1}
    assert rig.heard == ["task_succeeded", "task_postrun"]
    ledger.assert_exactly_once()


# --- the broker is away -------------------------------------------------------------------------------------------


async def test_broker_away_at_the_finish(rig, ledger, quick, autojump_clock):
    """G11: settlements are retried, without recording again, until the broker is back; the handler is not run again."""
    handle = await rig.enqueue(quick)
    rig.faults.fail("broker.settle", times=5)
    async with rig.worker(quick) as worker:
        await trio.sleep(20)
    assert await rig.places() == GONE
    assert rig.faults.trace.count("backend.record:before") == 1
    assert rig.faults.trace.count("broker.settle:before") == 6
    assert (await rig.status(handle)).state is TaskState.SUCCEEDED
    assert counts(worker) == {"succeeded": 1}
    ledger.assert_exactly_once()


async def test_each_outage_begins_with_short_waits(rig, ledger, quick, autojump_clock):
    """G11: a settlement that was waited for long makes nobody wait longer at the next outage."""
    async with rig.worker(quick) as worker:
        for _ in range(2):
            rig.faults.fail("broker.settle", times=10)
            await rig.enqueue(quick)
            began = trio.current_time()
            rig.faults.trace.clear()
            await trio.sleep(0.5)
            assert 3 <= rig.faults.trace.count("broker.settle:before") <= 5
            await trio.sleep(60)
            assert worker.in_flight == 0
            assert trio.current_time() - began > 60
    ledger.assert_exactly_once()


async def test_broker_away_past_the_lease(rig, ledger, quick, autojump_clock):
    """G11: settlements are not retried past the lease's end; the task is run again elsewhere."""
    rig.listen()
    handle = await rig.enqueue(quick, visibility_timeout=30)
    cut_off = Faults()
    for operation in ("broker.settle", "broker.renew"):
        cut_off.fail(operation)
    cut_off.fail("broker.claim", skip=1)
    began = trio.current_time()
    async with rig.worker(quick, faults=cut_off) as first:
        await trio.testing.wait_all_tasks_blocked()
        async with rig.worker(quick, signals=None) as second:
            await trio.sleep(29.9)
            assert first.in_flight == 1
            while not second.totals["succeeded"]:
                await second.wait_settled()
            assert trio.current_time() - began == pytest.approx(30, abs=0.01)
            tried = cut_off.trace.count("broker.settle:before")
            await trio.sleep(60)
            assert first.in_flight == 0
            assert cut_off.trace.count("broker.settle:before") <= tried + 1
    assert counts(first) == {"lease_lost": 1}
    assert rig.heard == ["task_lease_lost", "task_postrun"]
    assert [run.worker for run in ledger.runs] == [first.id, second.id]
    assert (await rig.status(handle)).worker == second.id


async def test_late_settlement_is_refused(rig, ledger, quick, autojump_clock):
    """G3: a settlement that reaches the broker after the lease has ended changes nothing, and the worker is told."""
    rig.listen()
    handle = await rig.enqueue(quick, visibility_timeout=5)
    slow = Faults()
    slow.fail("broker.renew")
    slow.fail("broker.claim", skip=1)
    slow.at("broker.settle:before", partial(trio.sleep, 8))
    async with rig.worker(quick, faults=slow) as first:
        await trio.testing.wait_all_tasks_blocked()
        async with rig.worker(quick, signals=None) as second:
            await trio.sleep(6)
            assert counts(second) == {"succeeded": 1}
            await trio.sleep(6)
    assert slow.trace.count("broker.settle:after") == 1
    assert counts(first) == {"lease_lost": 1}
    assert rig.heard == ["task_lease_lost", "task_postrun"]
    assert rig.event("task_postrun").state is None  # whatever this worker had recorded, before it was refused
    assert (await rig.status(handle)).deliveries == 2
    assert await rig.places() == GONE


async def test_settlement_that_was_made_and_reported_as_failed(rig, ledger, quick, autojump_clock):
    """G6: a settlement that may have been made is made again; refused then, it was made: one success, one run."""
    rig.listen()
    await rig.enqueue(quick)
    rig.faults.fail("broker.settle", when="after", times=1)
    async with rig.worker(quick) as worker:
        await trio.sleep(100)
    assert rig.faults.trace.count("broker.settle:before") == 2
    assert counts(worker) == {"succeeded": 1}
    assert rig.heard == ["task_succeeded", "task_postrun"]
    ledger.assert_exactly_once()


async def test_settlement_that_was_not_made_and_comes_too_late(rig, ledger, quick, autojump_clock):
    """G6: a refusal past the lease's end proves nothing: the task is not called succeeded, and is run again."""

    def unsure():
        raise StoreUnavailableError("who knows", maybe_applied=True)

    rig.listen()
    handle = await rig.enqueue(quick, visibility_timeout=5)
    rig.faults.fail("broker.renew")
    rig.faults.at("broker.settle:before", unsure, times=1)
    rig.faults.at("broker.settle:before", partial(trio.sleep, 6), times=1)
    async with rig.worker(quick) as worker:
        while not worker.totals["succeeded"]:
            await worker.wait_settled()
    assert counts(worker) == {"lease_lost": 1, "succeeded": 1}
    assert rig.heard == ["task_lease_lost", "task_postrun", "task_succeeded", "task_postrun"]
    assert ledger.effects[handle.id] == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_settlement_that_hangs(rig, ledger, quick, autojump_clock, when):
    """A settlement that does not return is given up, and made again; made or not, it is told of as one success."""
    rig.listen()
    await rig.enqueue(quick)
    rig.faults.hang("broker.settle", when=when, times=1)
    async with rig.worker(quick, store_timeout=3) as worker:
        await trio.sleep(2.9)
        assert worker.in_flight == 1
        await trio.sleep(0.3)
        assert worker.in_flight == 0
    assert counts(worker) == {"succeeded": 1}
    assert rig.heard == ["task_succeeded", "task_postrun"]
    ledger.assert_exactly_once()


@pytest.mark.parametrize("operation", ["backend.record", "broker.settle"])
async def test_store_that_hangs_past_the_lease(rig, ledger, quick, autojump_clock, operation):
    """G11: a call that hangs until the lease has ended is not repeated; the task is run again under a new one."""
    handle = await rig.enqueue(quick, visibility_timeout=5)
    rig.faults.fail("broker.renew")
    rig.faults.hang(operation, times=1)
    async with rig.worker(quick, store_timeout=8, concurrency=1, prefetch=0) as worker:
        while not worker.totals["succeeded"]:
            await worker.wait_settled()
    assert await rig.places() == GONE
    assert (await rig.status(handle)).deliveries == 2
    assert ledger.runs[1].began - ledger.runs[0].began == pytest.approx(8, abs=0.01)  # the place was free at once
    assert counts(worker) == {"lease_lost": 1, "succeeded": 1}
    assert [run.deliveries for run in ledger.runs] == [1, 2]


async def test_retry_that_was_settled_and_reported_as_failed(rig, ledger, autojump_clock):
    """G6, G7: a retry that was made twice is one retry: the second one is refused by its token."""

    @task(name="failing", max_retries=1)
    async def failing(context: TaskContext) -> str:
        with ledger.run(context):
            if context.attempt == 0:
                raise ValueError
            return "second time"

    rig.listen("task_retry", "task_lease_lost")
    handle = await rig.enqueue(failing)
    rig.faults.fail("broker.settle", when="after", times=1)
    async with rig.worker(failing, retry_strategy=FixedRetryStrategy(0)) as worker:
        assert await handle.result(timeout=10) == "second time"
    assert counts(worker) == {"retried": 1, "succeeded": 1}
    assert rig.heard == ["task_retry"]
    assert [(run.attempt, run.deliveries) for run in ledger.runs] == [(0, 1), (1, 2)]


async def test_slow_settlement_meanwhile_others_lose_their_lease(rig, ledger, autojump_clock):
    """G4: a run that ended while the settler was busy, and lost its lease before its turn came, is not recorded."""

    @task(name="short", visibility_timeout=5)
    async def short(context: TaskContext, seconds: float) -> str:
        with ledger.run(context):
            await trio.sleep(seconds)
            return "done"

    async def once(seconds):
        rig.faults.fail("broker.renew")
        await trio.sleep(seconds)

    first = await rig.enqueue(short, 0.5, visibility_timeout=60)
    second = await rig.enqueue(short, 1.0)
    rig.faults.at("backend.record:before", lambda: once(6), skip=1, times=1)  # the first write is of both running
    async with rig.worker(short, concurrency=2, prefetch=0, retry_strategy=FixedRetryStrategy(0)) as worker:
        await trio.sleep(6.6)
        assert (await rig.status(first)).state is TaskState.SUCCEEDED
        assert (await rig.status(second)).state is TaskState.RUNNING
        assert worker.totals["lease_lost"] == 1
        rig.faults.clear()
        await second.result(timeout=60)


# --- a store that refuses -----------------------------------------------------------------------------------------


def refuse():
    """A store that is there, and says no."""
    raise StoreError("out of disk")


POINTS = [
    "broker.claim:before",
    "broker.claim:after",
    "broker.renew:before",
    "broker.settle:before",
    "broker.subscribe:before",
    "broker.receive:before",
    "backend.record:before",
    "backend.record:after",
    "backend.put_heartbeat:before",
]


@pytest.mark.parametrize("point", POINTS)
async def test_store_that_refuses(rig, ledger, autojump_clock, point):
    """G10: an error that waiting cannot mend ends the worker, which gives back everything, and raises it as it is."""

    @task(name="mixed", visibility_timeout=30)
    async def mixed(context: TaskContext, seconds: float) -> None:
        with ledger.run(context):
            await trio.sleep(seconds)

    worker = rig.worker(mixed, concurrency=3, prefetch=2, heartbeat_interval=10)
    for seconds in (15, 1000, 1000, 1000, 1000):
        await rig.enqueue(mixed, seconds)
    skip = {"broker.claim:before": 1, "broker.claim:after": 1, "backend.put_heartbeat:before": 1}.get(point, 0)
    rig.faults.at(point, refuse, skip=skip, times=1)
    with pytest.raises(StoreError, match="out of disk") as caught:
        await worker.run()
    assert not isinstance(caught.value, StoreUnavailableError)
    assert worker.in_flight == 0
    ready, delayed, leased, dead = await rig.places()
    assert (delayed, leased, dead) == (0, 0, 0)
    assert ready + worker.totals["succeeded"] == 5
    assert worker.totals["released"] <= ready
    assert await rig.backend.list_heartbeats() == []
    assert all(waiting.attempt == 0 for waiting in await rig.broker.peek("default"))


async def test_backend_that_refuses_for_good(rig, ledger, autojump_clock):
    """G10, G6: runs that cannot be recorded are left to their leases; all others are given back all the same."""

    @task(name="mixed", visibility_timeout=30)
    async def mixed(context: TaskContext, seconds: float) -> None:
        with ledger.run(context):
            await trio.sleep(seconds)

    worker = rig.worker(mixed, concurrency=3, prefetch=2)
    await rig.enqueue(mixed, 1)
    for _ in range(4):
        await rig.enqueue(mixed, 1000)
    rig.faults.at("backend.record:before", refuse, skip=1)
    with pytest.raises(StoreError, match="out of disk"):
        await worker.run()
    assert await rig.places() == (4, 0, 1, 0)
    assert worker.in_flight == 1
    [delivery] = [
        delivery
        for delivery in await rig.broker.claim(["default"], consumer="next", limit=9, wait=0)
        + await rig.broker.claim(["default"], consumer="next", limit=9, wait=60)
        if delivery.strikes
    ]
    assert (delivery.envelope.id, delivery.strikes) == (ledger.accepted[0], 1)


# --- the settler by itself ----------------------------------------------------------------------------------------


async def held_by(rig, quick, worker):
    """A delivery taken by hand into the holdings of a worker that does not run."""
    await rig.enqueue(quick)
    [delivery] = await rig.broker.claim(["default"], consumer=worker.id, limit=1, wait=0)
    return worker._holdings.add(delivery)


async def test_the_first_end_counts(rig, quick, autojump_clock):
    """A delivery is finished once; whoever comes second changes nothing."""
    worker = rig.worker(quick)
    held = await held_by(rig, quick, worker)
    worker._settler.finish(held, Interrupted())
    worker._settler.finish(held, Succeeded())
    assert (held.phase, held.outcome) == (Phase.FINISHED, Interrupted())
    await worker._settler.settle_rest()
    assert counts(worker) == {"released": 1}
    assert await rig.places() == (1, 0, 0, 0)


async def test_the_rest_is_attempted_once(rig, quick, autojump_clock, caplog):
    """What is left at the very end is tried once more; what cannot be settled then is logged, and left to its lease."""
    worker = rig.worker(quick)
    held = await held_by(rig, quick, worker)
    worker._settler.finish(held, Interrupted())
    rig.faults.down = True
    await worker._settler.settle_rest()
    assert "cannot settle 1 task(s); they come back when their lease ends" in caplog.text
    assert worker.in_flight == 1


async def test_the_rest_without_what_is_lost(rig, quick, autojump_clock):
    """G4: nor is anything recorded at the very end for which the lease has ended."""
    worker = rig.worker(quick)
    held = await held_by(rig, quick, worker)
    worker._settler.finish(held, Succeeded())
    await trio.sleep(30)
    await worker._settler.settle_rest()
    assert rig.faults.trace == []
    assert counts(worker) == {"lease_lost": 1}


async def test_nothing_is_left(rig, quick, autojump_clock):
    """Nothing to settle costs no call."""
    worker = rig.worker(quick)
    await worker._settler.settle_rest()
    assert rig.faults.trace == []


async def test_unsure_is_not_forgotten(rig, quick, autojump_clock):
    """Only attempts that may have been made turn a refusal into a success; a plain outage does not."""
    worker = rig.worker(quick)
    held = await held_by(rig, quick, worker)
    worker._settler.finish(held, Succeeded())
    rig.faults.fail("broker.settle", times=1)
    await worker._settler.settle_rest()
    assert held.unsure is False
    assert await rig.broker.settle([(held.lease, Complete())]) == [True]  # somebody else's doing
    await worker._settler.settle_rest()
    assert counts(worker) == {"lease_lost": 1}


async def test_store_timeout_is_told_by_name(rig, quick, autojump_clock):
    """A call that is given up says which, and that it may have been made."""
    worker = rig.worker(quick, store_timeout=7)
    with pytest.raises(StoreTimeoutError, match="settle: the store did not answer within 7 s") as caught:
        await worker._setup.call("settle", trio.sleep_forever)
    assert caught.value.maybe_applied


async def test_wait_progress_is_shared(rig, quick, autojump_clock):
    """Everybody who waits for progress is woken by the next settlement."""
    worker = rig.worker(quick)
    held = await held_by(rig, quick, worker)
    woken = []

    async def waiter():
        await worker.wait_settled()
        woken.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter)
        nursery.start_soon(waiter)
        await trio.testing.wait_all_tasks_blocked()
        worker._settler.finish(held, Succeeded())
        await worker._settler.settle_rest()
    assert woken == [1, 1]
    assert isinstance(held, Held)
