"""G9: claims are made for free places only, and starts are ordered by priority."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import trio
import trio.testing

from stem_trio import InMemoryBroker, ShutdownMode, TaskContext, task
from stem_trio.worker.notify import EventPump
from stem_trio.worker.prefetch import Prefetch


def counts(worker):
    """What a worker has counted, without what it has not."""
    return {name: count for name, count in worker.totals.items() if count}


async def until_ended(worker, count):
    """Wait until so many runs of a worker have ended."""
    while sum(worker.totals.values()) < count:
        await worker.wait_settled()


@pytest.fixture
def work(ledger):
    """A task that takes as long as it is told."""

    @task(name="work")
    async def work(context: TaskContext, seconds: float = 1.0) -> None:
        with ledger.run(context):
            await trio.sleep(seconds)

    return work


# --- no more than there is room for -------------------------------------------------------------------------------


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (1, 3), (3, 0), (3, 2), (8, None), (50, 0)])
async def test_never_more_than_stated(rig, ledger, work, autojump_clock, concurrency, prefetch):
    """G9: at no claim are more held than slots and prefetch, and never do more run than slots."""
    capacity = concurrency + (prefetch if prefetch is not None else concurrency)
    held = []

    async def look():
        held.append((await rig.places())[2])

    rig.faults.at("broker.claim:after", look)
    rng = random.Random(concurrency)
    await rig.enqueue_many(work, 100)
    async with rig.worker(work, concurrency=concurrency, prefetch=prefetch) as worker:
        for _ in range(100):
            await rig.enqueue(work, rng.choice([0, 0, 0.5, 1, 3]), priority=rng.randrange(10))
            if rng.random() < 0.05:
                await trio.sleep(rng.random() * 5)
        await until_ended(worker, 200)
    assert concurrency < max(held) <= capacity if prefetch is None else max(held) == capacity
    assert ledger.peak == concurrency
    ledger.assert_exactly_once()


# --- the default prefetch -----------------------------------------------------------------------------------------


async def test_prefetch_follows_the_pace(autojump_clock):
    """By default as many are held as were started in the last tenth of a second, never more than there are slots."""
    prefetch = Prefetch(10, None)
    assert prefetch.allowed() == 0
    for _ in range(4):
        prefetch.started()
    assert prefetch.allowed() == 4
    await trio.sleep(0.1)
    assert prefetch.allowed() == 4  # of the window before
    await trio.sleep(0.1)
    assert prefetch.allowed() == 0
    for _ in range(50):
        prefetch.started()
    assert prefetch.allowed() == 10
    await trio.sleep(5)
    assert prefetch.allowed() == 0


async def test_prefetch_that_has_stalled(autojump_clock):
    """What is held by default is given back when nothing has been started for a second; never a stated number."""
    prefetch, stated = Prefetch(10, None), Prefetch(10, 3)
    prefetch.started()
    assert not prefetch.stalled()
    await trio.sleep(0.9)
    assert not prefetch.stalled()
    await trio.sleep(1.0)
    assert prefetch.stalled()
    assert (stated.stalled(), stated.allowed(), stated.patience) == (False, 3, math.inf)
    prefetch.started()
    assert not prefetch.stalled()


async def test_long_tasks_keep_nothing_from_others(rig, ledger, autojump_clock):
    """G9: what was prefetched when tasks were short is given back once they are long, and runs elsewhere."""
    pause = 0.0

    @task(name="pausing", visibility_timeout=30)
    async def pausing(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(pause)

    async with rig.worker(pausing, concurrency=4) as busy:
        await rig.enqueue_many(pausing, 20)
        await until_ended(busy, 20)
        pause = 600.0
        await rig.enqueue_many(pausing, 8)
        await trio.sleep(0.05)
        held = busy.in_flight
        assert 4 < held <= 8
        await trio.sleep(3)
        assert (busy.in_flight, busy.totals["released"]) == (4, held - 4)
        async with rig.worker(pausing, concurrency=4) as idle:
            await trio.sleep(1)
            assert idle.in_flight == 4
            await until_ended(idle, 4)
        await until_ended(busy, 24 + held - 4)
    ledger.assert_exactly_once()


async def test_claims_ask_for_the_free_places(rig, ledger, work, autojump_clock, monkeypatch):
    """Each claim asks for what is free now, so that a busy worker takes no more than it can use."""
    limits = []
    claim = InMemoryBroker.claim

    async def spy(self, queues, *, consumer, limit, wait):
        limits.append(limit)
        return await claim(self, queues, consumer=consumer, limit=limit, wait=wait)

    monkeypatch.setattr(InMemoryBroker, "claim", spy)
    await rig.enqueue_many(work, 2)
    async with rig.worker(work, concurrency=4, prefetch=2) as worker:
        await trio.sleep(0.5)
        await rig.enqueue_many(work, 20)
        await until_ended(worker, 22)
    assert limits[:2] == [6, 4]
    assert max(limits) <= 6
    ledger.assert_exactly_once()


async def test_lost_deliveries_make_room(rig, ledger, work, autojump_clock):
    """A delivery that is lost frees its place for another one."""

    @task(name="stubborn", visibility_timeout=5)
    async def stubborn(context: TaskContext) -> None:
        await trio.sleep(20)

    rig.faults.fail("broker.renew")
    await rig.stem.submit(stubborn.with_options(max_strikes=1).bind())
    async with rig.worker(stubborn, work, concurrency=1, prefetch=0) as worker:
        await trio.sleep(1)
        await rig.enqueue(work)
        await until_ended(worker, 3)
    assert counts(worker) == {"lease_lost": 1, "failed": 1, "succeeded": 1}


# --- order --------------------------------------------------------------------------------------------------------


async def test_priority_orders_starts(rig, ledger, autojump_clock):
    """G9: with one slot, a hundred low ones waiting and no prefetch, a high one that comes then starts next."""
    order = []

    @task(name="ordered")
    async def ordered(context: TaskContext, label: str) -> None:
        order.append(label)
        await trio.sleep(1)

    for number in range(100):
        await rig.enqueue(ordered, f"low {number}", priority=1)
    async with rig.worker(ordered, concurrency=1, prefetch=0) as worker:
        await trio.sleep(4.5)
        await rig.enqueue(ordered, "high", priority=8)
        await trio.sleep(3)
        await worker.shutdown("hard")
    assert order == ["low 0", "low 1", "low 2", "low 3", "low 4", "high", "low 5", "low 6"]


async def test_priority_orders_what_is_held(rig, autojump_clock):
    """What is claimed and waits for a slot starts by priority, too, and in the order of the claim within one."""
    order = []

    @task(name="ordered")
    async def ordered(label: str) -> None:
        order.append(label)
        await trio.sleep(1)

    async with rig.worker(ordered, concurrency=1, prefetch=5):
        for label, priority in [("first", 0), ("low a", 1), ("high a", 9), ("low b", 1), ("middle", 5), ("high b", 9)]:
            await rig.enqueue(ordered, label, priority=priority)
            await trio.testing.wait_all_tasks_blocked()
        assert await rig.places() == (0, 0, 6, 0)
        await trio.sleep(7)
    assert order == ["first", "high a", "high b", "middle", "low a", "low b"]


async def test_first_come_first_served(rig, autojump_clock):
    """Within a priority tasks start in the order in which they were enqueued."""
    order = []

    @task(name="ordered")
    async def ordered(number: int) -> None:
        order.append(number)
        await trio.sleep(1)

    async with rig.worker(ordered, concurrency=1, prefetch=3) as worker:
        for number in range(20):
            await rig.enqueue(ordered, number)
        await until_ended(worker, 20)
    assert order == list(range(20))


async def test_several_queues_are_served_fairly(rig, autojump_clock):
    """Queues take turns: a long one does not keep a short one waiting."""
    order = []

    @task(name="labelled")
    async def labelled(context: TaskContext) -> None:
        order.append(context.queue)
        await trio.sleep(1)

    await rig.enqueue_many(labelled, 100, queue="long")
    await rig.enqueue_many(labelled, 10, queue="short")
    async with rig.worker(labelled, queues=["long", "short"], concurrency=1, prefetch=0) as worker:
        await trio.sleep(20.5)
        await worker.shutdown("hard")
    assert order[:20].count("short") == 10


# --- the broker is away -------------------------------------------------------------------------------------------


async def test_claims_survive_an_outage(rig, ledger, work, autojump_clock):
    """G11: a worker outlives an outage of an hour; a few seconds after its end work goes on."""
    await rig.enqueue_many(work, 20)
    rig.faults.down = True
    async with rig.worker(work) as worker:
        await trio.sleep(3600)
        rig.faults.down = False
        back = trio.current_time()
        await until_ended(worker, 20)
        assert trio.current_time() - back <= 5 + 1.1
    ledger.assert_exactly_once()


async def test_claim_waits_grow(rig, autojump_clock):
    """G11: waits between failing claims grow to five seconds, with jitter, and start small again after a success."""
    times = []
    rig.faults.at("broker.claim:before", lambda: times.append(trio.current_time()))
    rig.faults.fail("broker.claim", times=30)
    async with rig.worker():
        await trio.sleep(300)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert 0.025 <= gaps[0] <= 0.05
        assert all(gap <= 5 for gap in gaps[:30])
        assert all(gap >= 2.5 for gap in gaps[10:30])
        assert len({round(gap, 6) for gap in gaps[10:30]}) > 10
        assert gaps[30] == pytest.approx(30)  # an idle claim lasts as long as it may
        rig.faults.fail("broker.claim", times=1)
        began = len(times)
        await trio.sleep(60)
        again = [later - earlier for earlier, later in zip(times[began:], times[began + 1 :], strict=False)]
        assert min(again) <= 0.05


async def test_claim_that_hangs(rig, ledger, work, autojump_clock):
    """A claim that never returns is given up after its wait and the time that a call may take."""
    rig.faults.hang("broker.claim", times=1)
    began = trio.current_time()
    await rig.enqueue(work, 0)
    async with rig.worker(work, store_timeout=7) as worker:
        await until_ended(worker, 1)
    assert trio.current_time() - began == pytest.approx(37, abs=0.1)
    ledger.assert_exactly_once()


async def test_claim_that_was_made_and_reported_as_failed(rig, ledger, work, autojump_clock):
    """G1: deliveries that got lost on their way come back when their lease ends, and run then."""
    rig.faults.fail("broker.claim", when="after", times=1)
    handle = await rig.enqueue(work, 0)
    began = trio.current_time()
    async with rig.worker(work):
        await handle.result(timeout=60)
    assert trio.current_time() - began == pytest.approx(30, abs=0.1)
    ledger.assert_exactly_once()


async def test_herd(rig, ledger, work, autojump_clock):
    """G1, G9: twenty workers that come back from an outage together share the work; each task runs once."""
    ids = await rig.enqueue_many(work, 500)
    rig.faults.down = True
    async with trio.open_nursery() as nursery:
        workers = [rig.worker(work, concurrency=4) for _ in range(20)]
        for worker in workers:
            await worker.start(nursery)
        await trio.sleep(60)
        assert ledger.runs == []
        rig.faults.down = False
        for task_id in ids:
            await rig.stem.wait_for_task(task_id, timeout=60)
        for worker in workers:
            await worker.shutdown()
    assert sum(worker.totals["succeeded"] for worker in workers) == 500
    assert min(worker.totals["succeeded"] for worker in workers) > 0
    ledger.assert_exactly_once()


# --- stopping -----------------------------------------------------------------------------------------------------


async def test_nothing_starts_after_a_shutdown(rig, ledger, work, autojump_clock):
    """G10: deliveries of a claim that returns in the very moment of a shutdown are given back, not started."""
    await rig.enqueue_many(work, 10)
    worker = rig.worker(work, concurrency=4, prefetch=4)
    rig.faults.at("broker.claim:after", lambda: worker._shutdown.request(ShutdownMode.WARM))
    await worker.run()
    assert ledger.runs == []
    assert counts(worker) == {"released": 8}
    assert await rig.places() == (10, 0, 0, 0)
    assert all(waiting.deliveries in (0, 1) and waiting.attempt == 0 for waiting in await rig.broker.peek("default"))


async def test_no_slot_is_filled_while_draining(rig, ledger, work, autojump_clock):
    """G10: a slot that comes free during a warm shutdown stays free; what waited for it has been given back."""
    await rig.enqueue_many(work, 4)
    async with rig.worker(work, concurrency=2, prefetch=2) as worker:
        await trio.sleep(0.5)
    assert len(ledger.runs) == 2
    assert counts(worker) == {"succeeded": 2, "released": 2}
    assert await rig.places() == (2, 0, 0, 0)


# --- listeners that lag -------------------------------------------------------------------------------------------


async def test_slow_listeners_stop_claiming_only(rig, ledger, work, autojump_clock, monkeypatch):
    """G9: with listeners too far behind no new tasks are claimed, while leases are renewed and results settled."""
    monkeypatch.setattr(EventPump, "HIGH_WATER", 5)
    told = []
    go_on = trio.Event()

    @rig.signals.task_succeeded.connect
    async def slow(event):
        with trio.CancelScope(shield=True):  # the signals give it up after thirty seconds otherwise
            await go_on.wait()
        told.append(event.task_id)

    long = await rig.enqueue(work, 200)
    ids = await rig.enqueue_many(work, 50)
    async with rig.worker(work, concurrency=4, prefetch=0) as worker:
        await trio.sleep(100)
        held_up = worker.totals["succeeded"]
        assert 6 <= held_up <= 10
        assert worker.in_flight == 1  # the long one
        assert (await rig.places())[0] == 50 - held_up
        assert rig.faults.trace.count("broker.renew:after") >= 9
        go_on.set()
        for task_id in [long.id, *ids]:
            await rig.stem.wait_for_task(task_id, timeout=300)
    assert sorted(told) == sorted([long.id, *ids])
    ledger.assert_exactly_once()


async def test_events_keep_their_order(rig, work, autojump_clock):
    """Events are told in the order in which they happened, one after the other, however slow the listeners are."""
    told = []
    at_once = []

    @rig.signals.task_succeeded.connect
    async def listener(event):
        at_once.append(1)
        assert len(at_once) == 1
        await trio.sleep(random.random())
        told.append(event.occurred_at)
        at_once.pop()

    await rig.enqueue_many(work, 30)
    async with rig.worker(work, concurrency=3):
        await trio.sleep(40)
    assert len(told) == 30
    assert told == sorted(told)
    assert rig.listener_errors == []


# --- the pump by itself -------------------------------------------------------------------------------------------


async def test_pump(rig, autojump_clock):
    """What is put while the pump is at work is sent in the same go; empty means that all has been told."""
    pump = EventPump()
    told = []

    @rig.signals.task_succeeded.connect
    async def listener(event):
        told.append(event)
        if event == "first":
            pump.put(rig.signals.task_succeeded, "second")
        await trio.sleep(1)

    await pump.wait_empty()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        pump.put(rig.signals.task_succeeded, "first")
        await pump.wait_empty()
        assert told == ["first", "second"]
        assert not pump.lagging
        pump.put(rig.signals.task_succeeded, "third")
        pump.put(rig.signals.task_succeeded, "fourth")
        await pump.wait_empty()
        assert told == ["first", "second", "third", "fourth"]
        nursery.cancel_scope.cancel()


async def test_pump_that_is_cancelled(rig, autojump_clock):
    """What the pump was cancelled over stays in its queue, which is then not empty."""
    pump = EventPump()

    @rig.signals.task_succeeded.connect
    async def listener(event):
        await trio.sleep(100)

    pump.put(rig.signals.task_succeeded, "first")
    with trio.move_on_after(1):
        await pump.run()
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(1):
            await pump.wait_empty()
