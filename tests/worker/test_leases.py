"""G4: a lease is a cancel scope; renewed while there is work, lost without a second run beside the first."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing

from stem_trio import LeaseLostError, TaskContext, TaskState, WorkerLifecycleConfig, task
from stem_trio.outcome import Complete, Release
from stem_trio.testing.faults import Faults
from stem_trio.worker.lease import LeaseKeeper


def counts(worker):
    """What a worker has counted, without what it has not."""
    return {name: count for name, count in worker.totals.items() if count}


def moments(faults, point):
    """The times at which a point is reached from now on, as they come."""
    began = trio.current_time()
    times = []
    faults.at(point, lambda: times.append(trio.current_time() - began))
    return times


async def steal(rig, worker, task_id, *, by="thief"):
    """Take a task away from the worker that holds it, behind its back; returns the thief's delivery."""
    lease = worker._holdings.get(task_id).lease
    assert await rig.broker.settle([(lease, Release())]) == [True]
    [delivery] = await rig.broker.claim([lease.queue], consumer=by, limit=1, wait=0)
    assert delivery.envelope.id == task_id
    return delivery


# --- kept ---------------------------------------------------------------------------------------------------------


async def test_ten_leases_long_and_run_once(rig, ledger, autojump_clock):
    """G4: a handler that runs ten times its lease runs once, with other workers waiting for it."""

    @task(name="long", visibility_timeout=10)
    async def long(context: TaskContext) -> str:
        with ledger.run(context):
            await trio.sleep(100)
            return "done"

    handle = await rig.enqueue(long)
    async with rig.worker(long) as first, rig.worker(long) as second:
        assert await handle.result(timeout=101) == "done"
    assert counts(first) | counts(second) == {"succeeded": 1}
    assert [run.deliveries for run in ledger.runs] == [1]
    ledger.assert_exactly_once()


async def test_renewed_at_a_third_for_its_full_length(rig, autojump_clock):
    """G4: each renewal comes when a third has passed, and the local deadline is a full length from when it was sent."""
    deadlines = []

    @task(name="long", visibility_timeout=30)
    async def long(context: TaskContext) -> None:
        began = trio.current_time()
        for _ in range(5):
            deadlines.append(context.cancel_scope.deadline - began)
            await trio.sleep(10.5 if len(deadlines) == 1 else 10)

    await rig.enqueue(long)
    times = moments(rig.faults, "broker.renew:before")
    async with rig.worker(long):
        await trio.sleep(50)
    assert times == [pytest.approx(second) for second in (10, 20, 30, 40, 50)]
    assert deadlines == [pytest.approx(second) for second in (30, 40, 50, 60, 70)]


async def test_deadline_counts_from_before_the_request(rig, autojump_clock):
    """G4: a renewal that takes two seconds moves the deadline to a full length from when it was sent, not answered."""
    deadlines = []

    @task(name="long", visibility_timeout=30)
    async def long(context: TaskContext) -> None:
        began = trio.current_time()
        await trio.sleep(12.5)
        deadlines.append(context.cancel_scope.deadline - began)
        await trio.sleep(8)
        deadlines.append(context.cancel_scope.deadline - began)

    await rig.enqueue(long)
    rig.faults.at("broker.renew:after", partial(trio.sleep, 2))
    async with rig.worker(long):
        await trio.sleep(21)
    assert deadlines == [pytest.approx(40), pytest.approx(40)]


async def test_leases_are_renewed_together(rig, autojump_clock):
    """Leases that fall due at about the same time share one call."""

    @task(name="long", visibility_timeout=30)
    async def long() -> None:
        await trio.sleep(95)

    times = moments(rig.faults, "broker.renew:before")
    async with rig.worker(long, concurrency=10, prefetch=0):
        for _ in range(10):
            await rig.enqueue(long)
            await trio.sleep(0.1)
        await trio.sleep(94)
        assert len(times) <= 10


async def test_renewals_that_fail_for_a_while(rig, ledger, autojump_clock):
    """G11: renewals are tried again and again until the broker is back; the run notices nothing."""

    @task(name="long", visibility_timeout=30)
    async def long(context: TaskContext) -> str:
        with ledger.run(context):
            await trio.sleep(100)
            return "done"

    handle = await rig.enqueue(long)
    times = moments(rig.faults, "broker.renew:before")
    rig.faults.fail("broker.renew", times=6)
    async with rig.worker(long) as worker:
        assert await handle.result(timeout=101) == "done"
    assert counts(worker) == {"succeeded": 1}
    ledger.assert_exactly_once()
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(2.4 <= gap <= 3.6 for gap in gaps[:6])  # a tenth of the lease, with jitter
    assert all(gap == pytest.approx(10) for gap in gaps[6:])


async def test_renewal_that_hangs(rig, ledger, autojump_clock):
    """A renewal that does not return is given up while there is time for another; the run notices nothing."""

    @task(name="long", visibility_timeout=30)
    async def long(context: TaskContext) -> str:
        with ledger.run(context):
            await trio.sleep(100)
            return "done"

    handle = await rig.enqueue(long)
    times = moments(rig.faults, "broker.renew:before")
    rig.faults.hang("broker.renew", times=1)
    async with rig.worker(long):
        assert await handle.result(timeout=101) == "done"
    ledger.assert_exactly_once()
    assert times[0] == pytest.approx(10)
    assert 17.5 + 2.4 <= times[1] <= 17.5 + 3.6  # a quarter of the lease for the call, a tenth for the next one


@pytest.mark.parametrize("when", ["before", "after"])
async def test_renewals_that_hang_half_the_time(rig, ledger, autojump_clock, when):
    """Whether a hanging renewal has been made or not, the lease is not lost over it."""

    @task(name="long", visibility_timeout=30)
    async def long(context: TaskContext) -> str:
        with ledger.run(context):
            await trio.sleep(600)
            return "done"

    handle = await rig.enqueue(long)
    for skip in range(0, 40, 2):
        rig.faults.hang("broker.renew", when=when, skip=skip // 2, times=1)
    async with rig.worker(long):
        assert await handle.result(timeout=601) == "done"
    ledger.assert_exactly_once()


# --- prefetched ---------------------------------------------------------------------------------------------------


async def test_prefetched_deliveries_are_renewed(rig, ledger, autojump_clock):
    """G4: what waits for a slot is renewed like what runs, and runs once when its turn comes."""

    @task(name="long", visibility_timeout=10)
    async def long(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(50)

    ids = await rig.enqueue_many(long, 3)
    async with rig.worker(long, concurrency=1, prefetch=2) as first, rig.worker(long, queue="other"):
        await trio.testing.wait_all_tasks_blocked()
        assert await rig.places() == (0, 0, 3, 0)
        for task_id in ids:
            await rig.stem.wait_for_task(task_id, timeout=200)
    assert counts(first) == {"succeeded": 3}
    assert [run.deliveries for run in ledger.runs] == [1, 1, 1]
    ledger.assert_exactly_once()


async def test_prefetched_delivery_that_loses_its_lease(rig, ledger, autojump_clock):
    """G4, G8: one that waits and cannot be renewed is dropped when its lease ends, and starts elsewhere only."""

    @task(name="blocker", visibility_timeout=1000)
    async def blocker() -> None:
        await trio.sleep(100)

    @task(name="waiting", visibility_timeout=10)
    async def waiting(context: TaskContext) -> str:
        with ledger.run(context):
            return context.worker

    rig.listen("task_lease_lost", "task_postrun")
    await rig.stem.submit(blocker.bind())
    handle = await rig.enqueue(waiting)
    cut_off = Faults()
    async with rig.worker(blocker, waiting, concurrency=1, prefetch=1, faults=cut_off) as first:
        await trio.testing.wait_all_tasks_blocked()
        assert first.in_flight == 2
        cut_off.down = True
        began = trio.current_time()
        await trio.sleep(9.9)
        assert first.in_flight == 2
        await trio.sleep(0.2)
        assert first.in_flight == 1
        assert rig.heard == ["task_lease_lost"]
        assert rig.event("task_lease_lost").task_id == handle.id
        async with rig.worker(waiting, signals=None) as second:
            assert await handle.result(timeout=1) == second.id
        cut_off.clear()
        await trio.sleep(100)
    assert counts(first) == {"lease_lost": 1, "succeeded": 1}
    assert ledger.runs[0].began - began == pytest.approx(10.1)
    ledger.assert_exactly_once()


async def test_prefetched_delivery_whose_renewal_is_refused(rig, ledger, autojump_clock):
    """G3: one that waits and was given to somebody else is dropped at the next renewal, long before its lease ends."""

    @task(name="blocker", visibility_timeout=1000)
    async def blocker() -> None:
        await trio.sleep(100)

    @task(name="waiting", visibility_timeout=30)
    async def waiting(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    await rig.stem.submit(blocker.bind())
    handle = await rig.enqueue(waiting)
    async with rig.worker(blocker, waiting, concurrency=1, prefetch=1) as worker:
        await trio.testing.wait_all_tasks_blocked()
        delivery = await steal(rig, worker, handle.id)
        await trio.sleep(10.1)
        assert counts(worker) == {"lease_lost": 1}
        assert ledger.runs == []
        assert await rig.broker.settle([(delivery.lease, Complete())]) == [True]
        await trio.sleep(100)
    assert ledger.runs == []
    assert counts(worker) == {"lease_lost": 1, "succeeded": 1}


async def test_lost_deliveries_do_not_pile_up_behind_a_long_run(rig, autojump_clock):
    """G9: what was lost while it waited is forgotten, even if no slot comes free for days."""

    @task(name="blocker", visibility_timeout=1_000_000)
    async def blocker() -> None:
        await trio.sleep(2000)

    @task(name="waiting", visibility_timeout=1, max_strikes=1_000_000)
    async def waiting() -> None: ...

    await rig.enqueue(blocker)
    await rig.enqueue_many(waiting, 3)
    rig.faults.fail("broker.renew")
    async with rig.worker(blocker, waiting, concurrency=1, prefetch=3, heartbeat_interval=1000) as worker:
        await trio.sleep(100)
        assert worker.totals["lease_lost"] >= 200
        assert len(worker._fetcher._waiting) <= 8 + 3
        rig.faults.clear()
        await worker.shutdown("hard")


# --- lost ---------------------------------------------------------------------------------------------------------


async def test_renewals_that_fail_for_good(rig, ledger, autojump_clock):
    """G4: a worker that is cut off cancels its run no later than the lease ends; another completes it exactly once."""

    @task(name="long", visibility_timeout=30)
    async def long(context: TaskContext) -> str:
        with ledger.run(context):
            await trio.sleep(100)
            return context.worker

    rig.listen()
    handle = await rig.enqueue(long)
    cut_off = Faults()
    began = trio.current_time()
    async with rig.worker(long, faults=cut_off) as first:
        await trio.sleep(25)  # renewed at 10 and 20: the lease ends at 50
        cut_off.down = True
        async with rig.worker(long, signals=None) as second:
            assert await handle.result(timeout=200) == second.id
    assert [run.worker for run in ledger.runs] == [first.id, second.id]
    lost, done = ledger.runs
    assert lost.end == "Cancelled"
    assert lost.ended - began == pytest.approx(50)
    assert lost.ended <= done.began
    assert done.began - began == pytest.approx(50)
    assert (done.attempt, done.deliveries) == (0, 2)
    assert counts(first) == {"lease_lost": 1}
    assert counts(second) == {"succeeded": 1}
    assert rig.heard == ["task_lease_lost", "task_postrun"]
    assert rig.event("task_postrun").state is None
    ledger.assert_exactly_once()


async def test_renewals_that_hang_for_good(rig, ledger, autojump_clock):
    """G4: the end of the lease needs no answer of the broker: it is the deadline of the run's own scope."""

    @task(name="long", visibility_timeout=30)
    async def long(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(100)

    cut_off = Faults()
    for operation in ("broker.renew", "broker.claim", "broker.settle", "backend.record"):
        cut_off.hang(operation, skip=1 if operation == "broker.claim" else 0)
    handle = await rig.enqueue(long)
    async with rig.worker(long, faults=cut_off, lifecycle=WorkerLifecycleConfig(force_shutdown_after=1)) as first:
        await trio.testing.wait_all_tasks_blocked()
        async with rig.worker(long):
            await handle.result(timeout=200)
    assert ledger.runs[0].ended - ledger.runs[0].began == pytest.approx(30)
    assert ledger.runs[0].ended <= ledger.runs[1].began
    assert counts(first) == {"lease_lost": 1}
    ledger.assert_exactly_once()


async def test_renewal_that_is_refused(rig, ledger, autojump_clock):
    """G3, G4: a lease that was lost behind the worker's back ends its run at the next renewal already."""

    @task(name="long", visibility_timeout=30, max_retries=3)
    async def long(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(100)

    rig.listen()
    handle = await rig.enqueue(long)
    async with rig.worker(long, prefetch=0, concurrency=1) as worker:
        await trio.sleep(5)
        delivery = await steal(rig, worker, handle.id)
        await trio.sleep(6)
        assert ledger.ends == ["Cancelled"]
        assert counts(worker) == {"lease_lost": 1}
        assert await rig.broker.settle([(delivery.lease, Complete())]) == [True]
    assert ledger.runs[0].ended - ledger.runs[0].began == pytest.approx(10)
    assert rig.heard == ["task_lease_lost", "task_postrun"]


async def test_handler_that_ends_after_its_lease(rig, ledger, autojump_clock):
    """G4: the result of a handler that took no notice of its lost lease is refused, and not even recorded."""

    @task(name="frozen", visibility_timeout=10)
    async def frozen(context: TaskContext) -> str:
        with ledger.run(context):
            if context.deliveries == 1:
                with trio.CancelScope(shield=True):
                    await trio.sleep(15)
                return "too late"
            return "in time"

    handle = await rig.enqueue(frozen)
    rig.faults.fail("broker.renew")
    async with rig.worker(frozen, concurrency=1, prefetch=0) as worker:
        async with rig.backend.watch(handle.id) as watch:
            seen = []
            with trio.move_on_after(20):
                while TaskState.SUCCEEDED not in [status.state for status in seen]:
                    seen.append(await watch.changed())
    assert [(status.state, status.deliveries) for status in seen if status.state.terminal] == [(TaskState.SUCCEEDED, 2)]
    assert await handle.result(timeout=1) == "in time"
    assert counts(worker) == {"lease_lost": 1, "succeeded": 1}


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_frozen_process(rig, ledger, autojump_clock, how):
    """G4: after a process was stopped for longer than its leases, nothing that it then ends, or had ended, is recorded,

    and nothing that it held is started: all of it is run anew, under new leases.
    """

    @task(name="done", visibility_timeout=30, priority=2)
    async def done(context: TaskContext) -> int:
        with ledger.run(context):
            return context.deliveries

    @task(name="frozen", visibility_timeout=30, max_retries=3, priority=1)
    async def frozen(context: TaskContext) -> int:
        with ledger.run(context):
            if context.deliveries == 1:
                autojump_clock.jump(60)  # no checkpoint: the handler takes no notice
                if how == "raises":
                    raise ValueError
            return context.deliveries

    @task(name="waiting", visibility_timeout=30)
    async def waiting(context: TaskContext) -> int:
        with ledger.run(context):
            return context.deliveries

    handles = [await rig.enqueue(each) for each in (done, frozen, waiting)]
    seen = []

    async def follow(handle, *, task_status):
        async with rig.backend.watch(handle.id) as watch:
            task_status.started()
            while True:
                seen.append(await watch.changed())

    async with trio.open_nursery() as nursery:
        for handle in handles:
            await nursery.start(follow, handle)
        async with rig.worker(done, frozen, waiting, concurrency=2, prefetch=1) as worker:
            while worker.totals["succeeded"] < 3:
                await worker.wait_settled()
        nursery.cancel_scope.cancel()
    assert [status.deliveries for status in seen if status.state.terminal] == [2, 2, 2]
    for handle in handles:
        assert await handle.result(timeout=1) == 2
        assert (await rig.status(handle)).attempt == 0
    assert counts(worker) == {"lease_lost": 3, "succeeded": 3}
    assert [run.deliveries for run in ledger.runs if run.id == handles[2].id] == [2]


async def test_handler_that_ends_after_a_refused_renewal(rig, ledger, autojump_clock):
    """G3: nor is it recorded when the lease was taken away before its end; the state is the new holder's to tell."""

    @task(name="deaf", visibility_timeout=30)
    async def deaf(context: TaskContext) -> str:
        with ledger.run(context):
            with trio.CancelScope(shield=True):
                await trio.sleep(15)
            return "not mine to say"

    handle = await rig.enqueue(deaf)
    async with rig.worker(deaf, concurrency=1, prefetch=0) as worker:
        await trio.sleep(5)
        await steal(rig, worker, handle.id)
        await trio.sleep(11)
        assert counts(worker) == {"lease_lost": 1}
        assert (await rig.status(handle)).state is TaskState.RUNNING


async def test_finished_run_whose_renewal_is_refused(rig, ledger, autojump_clock):
    """G3, G6: a finished run that waits to be settled, and is given to somebody else meanwhile, has lost its lease."""

    @task(name="quick", visibility_timeout=30)
    async def quick(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    rig.listen("task_lease_lost", "task_succeeded")
    handle = await rig.enqueue(quick)
    rig.faults.fail("backend.record")
    async with rig.worker(quick, concurrency=1, prefetch=0) as worker:
        await trio.testing.wait_all_tasks_blocked()
        assert worker.in_flight == 1
        delivery = await steal(rig, worker, handle.id)
        await trio.sleep(15)  # the renewal at 10 was refused; it is not repeated
        assert rig.faults.trace.count("broker.renew:before") == 1
        assert worker.in_flight == 1
        rig.faults.clear()
        await trio.sleep(6)
        assert worker.in_flight == 0
        assert await rig.broker.settle([(delivery.lease, Complete())]) == [True]
    assert rig.heard == ["task_lease_lost"]
    assert counts(worker) == {"lease_lost": 1}


# --- the same task again ------------------------------------------------------------------------------------------


async def test_same_worker_again_while_the_first_run_cleans_up(rig, ledger, autojump_clock):
    """G4, G9: a task may come back to the worker that lost it: it is run anew, and the old run has no say."""

    @task(name="slow.cleanup", visibility_timeout=10)
    async def slow_cleanup(context: TaskContext) -> str:
        with ledger.run(context):
            if context.deliveries == 1:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(5)
            await trio.sleep(20)
            return "second"

    rig.listen("task_lease_lost", "task_succeeded")
    handle = await rig.enqueue(slow_cleanup)
    rig.faults.fail("broker.renew", times=30)
    async with rig.worker(slow_cleanup, concurrency=2, prefetch=0) as worker:
        await trio.sleep(12)
        assert [(run.deliveries, run.ended) for run in ledger.runs] == [(1, None), (2, None)]
        assert worker._holdings.running == 2
        assert worker.in_flight == 1
        assert (await rig.status(handle)).deliveries == 2
        rig.faults.clear()
        assert await handle.result(timeout=60) == "second"
        await trio.testing.wait_all_tasks_blocked()
        assert worker._holdings.running == 0
        assert worker.in_flight == 0
    assert rig.heard == ["task_lease_lost", "task_succeeded"]
    assert counts(worker) == {"lease_lost": 1, "succeeded": 1}


async def test_same_worker_again_while_it_waits(rig, ledger, autojump_clock):
    """G4: a waiting delivery that is lost, and comes back to the same worker, is started once, under its new lease."""

    @task(name="blocker", visibility_timeout=1000)
    async def blocker() -> None:
        await trio.sleep(35)

    @task(name="waiting", visibility_timeout=10, max_strikes=99)
    async def waiting(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(3)

    await rig.stem.submit(blocker.bind())
    handle = await rig.enqueue(waiting)
    rig.faults.fail("broker.renew")
    async with rig.worker(blocker, waiting, concurrency=1, prefetch=1) as worker:
        await handle.wait(timeout=60)
    assert counts(worker) == {"succeeded": 2, "lease_lost": 3}
    assert [run.deliveries for run in ledger.runs] == [4]
    ledger.assert_exactly_once()


async def test_stolen_and_back_again_while_it_waits(rig, ledger, autojump_clock):
    """A delivery that waits is replaced, unstarted, when its task is handed to the worker anew before it notices."""

    @task(name="blocker", visibility_timeout=1000)
    async def blocker() -> None:
        await trio.sleep(20)

    @task(name="waiting", visibility_timeout=100)
    async def waiting(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    await rig.stem.submit(blocker.bind())
    handle = await rig.enqueue(waiting)
    async with rig.worker(blocker, waiting, concurrency=1, prefetch=2) as worker:
        await trio.testing.wait_all_tasks_blocked()
        lease = worker._holdings.get(handle.id).lease
        assert await rig.broker.settle([(lease, Release())]) == [True]  # comes back to this worker at once
        await trio.testing.wait_all_tasks_blocked()
        assert worker._holdings.get(handle.id).lease.token != lease.token
        assert worker.in_flight == 2
        await handle.wait(timeout=60)
    assert counts(worker) == {"succeeded": 2, "lease_lost": 1}
    assert [run.deliveries for run in ledger.runs] == [2]
    ledger.assert_exactly_once()


# --- longer leases ------------------------------------------------------------------------------------------------


async def test_extend_lease(rig, ledger, autojump_clock):
    """`extend_lease` makes the lease longer, now and at each renewal; it never makes it shorter."""
    seen = []

    @task(name="long", visibility_timeout=10)
    async def long(context: TaskContext) -> str:
        with ledger.run(context):
            began = trio.current_time()
            await context.extend_lease(90)
            seen.append(context.cancel_scope.deadline - began)
            await trio.sleep(20)
            await context.extend_lease(60)
            seen.append(context.cancel_scope.deadline - began)
            await trio.sleep(31)  # renewed at 50, a third of 90 after 20
            seen.append(context.cancel_scope.deadline - began)
            return "done"

    times = moments(rig.faults, "broker.renew:before")
    handle = await rig.enqueue(long)
    async with rig.worker(long):
        assert await handle.result(timeout=60) == "done"
    assert seen == [pytest.approx(90), pytest.approx(110), pytest.approx(140)]
    assert times == [pytest.approx(0), pytest.approx(20), pytest.approx(50)]
    ledger.assert_exactly_once()


async def test_answers_out_of_order(rig, ledger, autojump_clock):
    """A shorter renewal that is answered after a longer one takes nothing back, now or later."""
    seen = []

    @task(name="long", visibility_timeout=12)
    async def long(context: TaskContext) -> None:
        with ledger.run(context):
            began = trio.current_time()
            await trio.sleep(4.5)  # the worker's own renewal of 4 is under way
            async with trio.open_nursery() as nursery:
                nursery.start_soon(context.heartbeat)  # and so is another short one
                await trio.sleep(0.5)
                await context.extend_lease(90)
                rig.faults.fail("broker.renew")
            seen.append(context.cancel_scope.deadline - began)
            await trio.sleep(30)
            seen.append(context.cancel_scope.deadline - began)
            rig.faults.clear()
            await trio.sleep(12)
            seen.append(context.cancel_scope.deadline - began)

    rig.faults.at("broker.renew:after", partial(trio.sleep, 3), times=2)
    await rig.enqueue(long)
    async with rig.worker(long) as worker:
        await trio.sleep(60)
    assert seen[:2] == [pytest.approx(95), pytest.approx(95)]
    assert seen[2] >= 38 + 90  # renewed for as long again
    assert counts(worker) == {"succeeded": 1}
    ledger.assert_exactly_once()


async def test_extended_lease_bridges_an_outage(rig, ledger, autojump_clock):
    """G11: with a lease of an hour a run survives half an hour without its broker, and is settled then."""

    @task(name="long", visibility_timeout=10)
    async def long(context: TaskContext) -> str:
        with ledger.run(context):
            await context.extend_lease(3600)
            rig.faults.down = True
            await trio.sleep(1800)
            return "done"

    handle = await rig.enqueue(long)
    async with rig.worker(long) as worker:
        await trio.sleep(1900)
        rig.faults.down = False
        assert await handle.result(timeout=10) == "done"
    assert counts(worker) == {"succeeded": 1}
    ledger.assert_exactly_once()


@pytest.mark.parametrize("operation", ["heartbeat", "extend"])
async def test_lost_lease_is_told_to_the_handler_that_asks(rig, ledger, autojump_clock, operation):
    """A handler that renews a lease it has lost gets `LeaseLostError`, and is cancelled even if it ignores that."""

    @task(name="asking", visibility_timeout=30)
    async def asking(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(5)
            with pytest.raises(LeaseLostError):
                await (context.heartbeat() if operation == "heartbeat" else context.extend_lease(60))
            told.append(trio.current_time())
            await trio.sleep_forever()

    told = []
    handle = await rig.enqueue(asking)
    async with rig.worker(asking, concurrency=1, prefetch=0) as worker:
        await trio.sleep(1)
        await steal(rig, worker, handle.id)
        await trio.sleep(5)
        assert counts(worker) == {"lease_lost": 1}
    assert ledger.ends == ["Cancelled"]
    assert ledger.runs[0].ended == told[0]


async def test_unhandled_loss_of_the_lease_is_no_failure(rig, ledger, autojump_clock):
    """G7: a handler that lets `LeaseLostError` out has not failed: no attempt is spent, nothing is recorded."""

    @task(name="asking", visibility_timeout=30, max_retries=3)
    async def asking(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(5)
            await context.heartbeat()

    handle = await rig.enqueue(asking)
    async with rig.worker(asking, concurrency=1, prefetch=0) as worker:
        await trio.sleep(1)
        await steal(rig, worker, handle.id)
        await trio.sleep(5)
    assert counts(worker) == {"lease_lost": 1}
    assert ledger.ends == ["LeaseLostError"]
    assert (await rig.status(handle)).state is TaskState.RUNNING


async def test_heartbeat_while_a_renewal_hangs(rig, ledger, autojump_clock):
    """A handler's own renewal counts although the worker's hangs; the next one is due a third later."""

    @task(name="beating", visibility_timeout=30)
    async def beating(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(11)  # the renewal of 10 hangs
            await context.heartbeat()
            await trio.sleep(60)

    times = moments(rig.faults, "broker.renew:before")
    rig.faults.hang("broker.renew", times=1)
    await rig.enqueue(beating)
    async with rig.worker(beating, prefetch=0) as worker:
        await trio.sleep(80)
    assert times[:2] == [pytest.approx(10), pytest.approx(11)]
    assert counts(worker) == {"succeeded": 1}
    ledger.assert_exactly_once()


# --- short and long ones together ---------------------------------------------------------------------------------


async def test_short_and_long_leases_on_one_worker(rig, ledger, autojump_clock):
    """G4: leases of 50 ms and of an hour live side by side, each renewed at its own third."""

    @task(name="run")
    async def run(context: TaskContext, seconds: float) -> None:
        with ledger.run(context):
            await trio.sleep(seconds)

    leases = [0.05, 0.05, 1, 10, 100, 3600]
    async with rig.worker(run, heartbeat_interval=1000) as worker:
        handles = [await rig.enqueue(run, lease * 3, visibility_timeout=lease) for lease in leases]
        for handle in handles:
            await handle.result(timeout=20_000)
    assert counts(worker) == {"succeeded": len(leases)}
    ledger.assert_exactly_once()


async def test_long_lease_does_not_keep_short_ones_waiting(rig, ledger, autojump_clock):
    """A renewal of a long lease that hangs takes ten seconds to give up; leases of one second do not wait for it."""

    @task(name="run")
    async def run(context: TaskContext, seconds: float) -> None:
        with ledger.run(context):
            await trio.sleep(seconds)

    rig.faults.hang("broker.renew", times=1)
    async with rig.worker(run) as worker:
        handles = [await rig.enqueue(run, 40, visibility_timeout=60)]
        await trio.sleep(20.1)
        handles.append(await rig.enqueue(run, 5, visibility_timeout=1))
        for handle in handles:
            await handle.result(timeout=100)
    assert counts(worker) == {"succeeded": 2}
    ledger.assert_exactly_once()


async def test_short_leases_do_not_hurry_long_ones(rig, ledger, autojump_clock):
    """A broker too slow for leases of half a second is fast enough for longer ones, on the same worker."""

    @task(name="run", max_strikes=10_000)
    async def run(context: TaskContext, seconds: float) -> None:
        with ledger.run(context):
            await trio.sleep(seconds)

    rig.faults.at("broker.renew:before", partial(trio.sleep, 0.4))
    async with rig.worker(run, concurrency=11, prefetch=0) as worker:
        long = await rig.enqueue(run, 50, visibility_timeout=12)
        for _ in range(10):
            await rig.enqueue(run, 1000, visibility_timeout=0.5, expires=48)
            await trio.sleep(0.05)
        await long.result(timeout=51)
        assert worker.totals["lease_lost"] > 500
    assert ledger.effects == {long.id: 1}
    assert [run.deliveries for run in ledger.runs if run.id == long.id] == [1]


async def test_renewal_during_a_shutdown(rig, autojump_clock):
    """G10: a renewal moves the lease, but lets no run outlast the worker."""

    @task(name="long", visibility_timeout=30)
    async def long() -> None: ...

    worker = rig.worker(long)
    keeper = LeaseKeeper(worker._setup, worker._holdings, None)
    await rig.enqueue(long)
    [delivery] = await rig.broker.claim(["default"], consumer=worker.id, limit=1, wait=0)
    held = worker._holdings.add(delivery)
    began = trio.current_time()
    worker._holdings.limit(began + 25)
    await trio.sleep(10)
    await keeper.renew_now(held, None)
    assert held.deadline == pytest.approx(began + 40)
    assert held.scope.deadline == pytest.approx(began + 25)


async def test_nothing_held_nothing_renewed(rig, autojump_clock):
    """An idle worker renews nothing, and its renewals begin with its first delivery."""

    @task(name="long", visibility_timeout=30)
    async def long() -> None:
        await trio.sleep(11)

    async with rig.worker(long) as worker:
        await trio.sleep(1000)
        assert "broker.renew:before" not in rig.faults.trace
        assert not list(worker._holdings)
        times = moments(rig.faults, "broker.renew:before")
        await (await rig.enqueue(long)).result(timeout=20)
    assert times == [pytest.approx(10)]
    assert math.isinf(worker._holdings.stop_at) is False
