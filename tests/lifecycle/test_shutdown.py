"""How a worker stops: modes, deadlines, escalation, and what is left behind, which is nothing (G10)."""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stem_trio import (
    ExponentialJitterRetryStrategy,
    InvalidOptionError,
    ShutdownMode,
    StoreError,
    TaskContext,
    WorkerLifecycleConfig,
    WorkerState,
    WorkerStateError,
    task,
)
from tests.lifecycle.support import Probe

MODES = ("warm", "soft", "hard")


@asynccontextmanager
async def running(worker):
    """The worker, ready, in a nursery that is given as well; what is left of it at the end is cancelled."""
    async with trio.open_nursery() as nursery:
        await worker.start(nursery)
        yield nursery
        nursery.cancel_scope.cancel()


async def hang(_) -> None:
    """A listener that never returns."""
    await trio.sleep_forever()


async def wait_all_tasks_blocked_shielded() -> None:
    """Let everything else go on, and be cancelled by nothing."""
    with trio.CancelScope(shield=True):
        await wait_all_tasks_blocked()


async def shut_down(worker, *args, **kwargs) -> float:
    """Shut the worker down; how long that took."""
    began = trio.current_time()
    await worker.shutdown(*args, **kwargs)
    assert worker.state is WorkerState.STOPPED
    return trio.current_time() - began


def config(grace: float = 30, force: float = 10) -> WorkerLifecycleConfig:
    return WorkerLifecycleConfig(soft_grace_period=grace, force_shutdown_after=force)


# --- the modes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, *ShutdownMode])
async def test_idle_worker_stops_at_once(world, autojump_clock, mode):
    """G10: nothing to wait for, nothing waited for, in any mode."""
    worker = world.worker()
    async with running(worker):
        assert worker.state is WorkerState.RUNNING
        assert await shut_down(worker, mode) == 0


async def test_warm_lets_handlers_finish(world, autojump_clock):
    """G10: a warm shutdown waits for what runs, and does not disturb it."""
    probe = Probe(lasts=7)
    job = probe.task()
    worker = world.worker(job)
    async with running(worker):
        task_id = await world.enqueue(job)
        await trio.sleep(2)
        assert await shut_down(worker) == 5
        assert probe.ended == [(7, "done")]
        assert probe.asked == []
        assert await world.state(task_id) == "succeeded"
        assert await world.places() == (0, 0, 0, 0)
        assert worker.totals["succeeded"] == 1


@pytest.mark.parametrize("mode", ["warm", "soft"])
async def test_grace_period_ends(world, autojump_clock, mode):
    """G10: what outlasts the grace period is cancelled when it ends, and given back."""
    probe = Probe(lasts=100)
    job = probe.task()
    worker = world.worker(job, lifecycle=config(grace=30))
    async with running(worker):
        task_id = await world.enqueue(job)
        await trio.sleep(1)
        assert await shut_down(worker, mode) == 30
        assert probe.ended == [(31, "cancelled")]
        assert await world.state(task_id) == "queued"
        assert await world.places() == (1, 0, 0, 0)
        assert worker.totals["released"] == 1


async def test_soft_asks_handlers_to_end(world, autojump_clock):
    """A soft shutdown sets `cancelled`; a handler that obeys has its result recorded, another has its grace."""
    willing, deaf, busy = Probe(obeys=True), Probe(), Probe(lasts=10)
    tasks = [willing.task("willing"), deaf.task("deaf"), busy.task("busy")]
    worker = world.worker(*tasks, lifecycle=config(grace=30))
    async with running(worker):
        ids = [await world.enqueue(job) for job in tasks]
        await trio.sleep(2)
        assert await shut_down(worker, "soft") == 30
        assert willing.asked == deaf.asked == busy.asked == [2]
        assert willing.ended == [(2, "obeyed")]
        assert busy.ended == [(10, "done")]
        assert deaf.ended == [(32, "cancelled")]
        assert [await world.state(task_id) for task_id in ids] == ["succeeded", "queued", "succeeded"]


async def test_hard_cancels_at_once(world, autojump_clock):
    """A hard shutdown cancels what runs, and takes no time."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job)
    async with running(worker):
        task_id = await world.enqueue(job)
        await trio.sleep(3)
        assert await shut_down(worker, "hard") == 0
        assert probe.ended == [(3, "cancelled")]
        assert probe.contexts[0].cancelled.is_set()
        assert await world.state(task_id) == "queued"
        assert await world.places() == (1, 0, 0, 0)


async def test_end_of_grace_is_a_hard_shutdown(world, autojump_clock):
    """A warm shutdown turns into a hard one when its time is over: `cancelled` is set, and events say so."""
    world.listen("worker_stopping", "worker_shutdown")

    @task
    async def shielded(context: TaskContext) -> float:
        with trio.CancelScope(shield=True):  # stands for a thread, which only looks at the event
            await context.cancelled.wait()
        return trio.current_time()

    worker = world.worker(shielded, lifecycle=config(grace=5))
    async with running(worker):
        task_id = await world.enqueue(shielded)
        await wait_all_tasks_blocked()
        assert await shut_down(worker) == 5
        assert (await world.stem.wait_for_task(task_id, 0)).value is not None
        assert [(name, event.mode) for name, event in world.events] == [
            ("worker_stopping", "warm"),
            ("worker_stopping", "hard"),
            ("worker_shutdown", "hard"),
        ]


@pytest.mark.parametrize("mode", MODES)
async def test_unstarted_deliveries_are_given_back_at_once(world, autojump_clock, mode):
    """G10, G7: what is claimed and waits for a slot goes back when the shutdown begins, at no cost to it."""
    world.listen("task_released")
    probe = Probe(lasts=20)
    job = probe.task()
    worker = world.worker(job, concurrency=1, prefetch=3)
    async with running(worker) as nursery:
        ids = [await world.enqueue(job) for _ in range(4)]
        await wait_all_tasks_blocked()
        assert worker.in_flight == 4
        assert await world.places() == (0, 0, 4, 0)
        nursery.start_soon(worker.shutdown, mode)
        await wait_all_tasks_blocked()
        running_now = 0 if mode == "hard" else 1
        assert worker.in_flight == running_now
        assert await world.places() == (4 - running_now, 0, running_now, 0)
        await worker.shutdown()
        assert len(probe.began) == 1
        assert [await world.state(task_id) for task_id in ids[1:]] == ["queued"] * 3
        deliveries = await world.claim()
        assert [(d.attempt, d.strikes, d.deliveries) for i, d in deliveries.items() if i != ids[0]] == [(0, 0, 2)] * 3
        started = {event.task_id: event.started for _, event in world.events}
        assert started == dict.fromkeys(ids[1:], False) | ({ids[0]: True} if mode == "hard" else {})


async def test_interruption_costs_nothing(world, autojump_clock):
    """G7: a run that a shutdown has cut short leaves attempt, strikes and retries as they were."""
    runs: list[int] = []

    @task(max_retries=2, max_strikes=2, visibility_timeout=10)
    async def job(context: TaskContext) -> None:
        runs.append(context.attempt)
        if len(runs) in {2, 3}:
            await trio.sleep_forever()
        raise ValueError

    task_id = await world.enqueue(job)
    [delivery] = (await world.claim()).values()  # a worker that dies
    await trio.sleep(11)
    for _ in range(3):
        worker = world.worker(job)
        async with running(worker):
            await trio.sleep(60)
            await worker.shutdown("hard")
    # One strike of the dead worker, then failures 0, 1, 2 with two interruptions of number 1 between them.
    assert delivery.attempt == 0
    assert runs == [0, 1, 1, 1, 2]
    letter = await world.memory_broker.get_dead_letter("default", task_id)
    assert (letter.reason, letter.attempt, letter.strikes) == ("max-retries-exhausted", 2, 0)
    assert letter.deliveries == 6


async def test_interruption_keeps_strikes(world, autojump_clock):
    """G7: nor does being given back forgive the strikes that there were."""
    probe = Probe()
    job = probe.task(max_strikes=3, visibility_timeout=5)
    task_id = await world.enqueue(job)
    await world.claim()
    await trio.sleep(6)
    worker = world.worker(job)
    async with running(worker):
        await trio.sleep(1)
        await worker.shutdown("hard")
    delivery = (await world.claim())[task_id]
    assert (delivery.attempt, delivery.strikes, delivery.deliveries) == (0, 1, 3)


# --- its deadlines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["warm", "soft"])
@pytest.mark.parametrize("grace", [0, 4, 90, timedelta(minutes=1)])
async def test_grace_of_one_call(world, autojump_clock, mode, grace):
    """`grace` takes the place of the configured period, be it longer or shorter."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job, lifecycle=config(grace=30))
    async with running(worker):
        await world.enqueue(job)
        await trio.sleep(1)
        expected = grace.total_seconds() if isinstance(grace, timedelta) else grace
        assert await shut_down(worker, mode, grace=grace) == expected


async def test_grace_means_nothing_to_hard(world, autojump_clock):
    """A hard shutdown has no grace period."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job)
    async with running(worker):
        await world.enqueue(job)
        await trio.sleep(1)
        assert await shut_down(worker, "hard", grace=50) == 0


@pytest.mark.parametrize("mode", MODES)
async def test_cleanup_of_handlers_is_waited_for(world, autojump_clock, mode):
    """G10: a task is not given back before the handler's cleanup is done, so that nobody runs it beside that."""
    probe = Probe(cleanup=4)
    job = probe.task()
    worker = world.worker(job, lifecycle=config(grace=2, force=10))
    grace = 0 if mode == "hard" else 2
    async with running(worker) as nursery:
        task_id = await world.enqueue(job)
        await trio.sleep(1)
        nursery.start_soon(worker.shutdown, mode)
        await trio.sleep(grace + 3.9)
        assert await world.places() == (0, 0, 1, 0)
        assert probe.running == 1
        await worker.shutdown()
        assert trio.current_time() == 1 + grace + 4
        assert await world.places() == (1, 0, 0, 0)
        assert await world.state(task_id) == "queued"


async def test_handler_that_shields_itself_for_long(world, autojump_clock):
    """A handler that cannot be cancelled does not keep others from being settled, nor the worker beating for ever."""
    stubborn, quick, slow = Probe(cleanup=1000), Probe(lasts=3), Probe()
    tasks = [stubborn.task("stubborn"), quick.task("quick"), slow.task("slow")]
    worker = world.worker(*tasks, lifecycle=config(grace=5, force=10), heartbeat_interval=2)
    async with running(worker) as nursery:
        stuck, done, cut = [await world.enqueue(job) for job in tasks]
        await wait_all_tasks_blocked()
        nursery.start_soon(worker.shutdown)
        await trio.sleep(4)
        assert await world.state(done) == "succeeded"
        await trio.sleep(2)
        # The grace period is over, and all that can be given back has been.
        assert await world.state(cut) == "queued"
        assert await world.places() == (1, 0, 1, 0)
        assert worker.in_flight == 1
        await trio.sleep(10)
        # The kill deadline is over too: no renewals, no heartbeats any more.
        assert worker.state is WorkerState.DRAINING
        count = len(world.faults.trace)
        await trio.sleep(900)
        assert len(world.faults.trace) == count
        # The lease has run out meanwhile, so that the task can be run elsewhere.
        assert set(await world.claim()) == {stuck, cut}
        await worker.shutdown()
    assert trio.current_time() == 1005
    assert worker.totals["released"] == 1
    assert worker.totals["lease_lost"] == 1


async def test_no_time_at_all(world, autojump_clock):
    """With all periods at 0 a shutdown takes no time, and leaves tasks to the end of their leases."""
    probe = Probe()
    job = probe.task(visibility_timeout=9)
    worker = world.worker(job, lifecycle=config(grace=0, force=0))
    async with running(worker):
        await world.enqueue(job)
        await trio.sleep(1)
        assert await shut_down(worker) == 0
        assert probe.ended == [(1, "cancelled")]
        assert await world.places() == (0, 0, 1, 0)
        await trio.sleep(9)
        assert await world.places() == (1, 0, 0, 0)


async def test_outage_bounds_a_shutdown(world, autojump_clock, caplog):
    """G10, G11: with the broker away, settling is tried for `force_shutdown_after` and no longer."""
    probe = Probe(lasts=2)
    job = probe.task(visibility_timeout=60)
    worker = world.worker(job, lifecycle=config(grace=30, force=10))
    async with running(worker):
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        world.faults.down = True
        assert await shut_down(worker) == 12
        assert "could not be given back" in caplog.text
        world.faults.clear()
        assert await world.places() == (0, 0, 1, 0)
        other = world.worker(job)
        async with running(other):
            await trio.sleep(60)
            assert await world.state(task_id) == "succeeded"
            await other.shutdown()


async def test_outage_that_ends_in_time(world, autojump_clock):
    """G11: what could not be settled at once is, when the broker is back before the deadline."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job, lifecycle=config(force=10))
    async with running(worker) as nursery:
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        world.faults.down = True
        nursery.start_soon(worker.shutdown, "hard")
        await trio.sleep(4)
        world.faults.clear()
        await worker.shutdown()
        assert trio.current_time() <= 10
        assert await world.places() == (1, 0, 0, 0)
        assert await world.state(task_id) == "queued"


async def test_broker_that_hangs(world, autojump_clock):
    """G10: a store that does not answer cannot hold a shutdown up for longer than its deadline."""
    probe = Probe(lasts=1)
    job = probe.task(visibility_timeout=100)
    worker = world.worker(job, lifecycle=config(grace=30, force=10), store_timeout=50)
    world.faults.hang("broker.settle")
    async with running(worker):
        await world.enqueue(job)
        await wait_all_tasks_blocked()
        assert await shut_down(worker) == 11


# --- escalation -----------------------------------------------------------------------------------------------------


async def test_escalation_in_steps(world, autojump_clock):
    """Each step may be more urgent than the last."""
    world.listen("worker_stopping", "worker_shutdown")
    probe = Probe()
    job = probe.task()
    worker = world.worker(job)
    async with running(worker) as nursery:
        await world.enqueue(job)
        await wait_all_tasks_blocked()
        nursery.start_soon(worker.shutdown, "warm")
        await trio.sleep(3)
        assert probe.asked == []
        nursery.start_soon(worker.shutdown, "soft")
        await trio.sleep(3)
        assert probe.asked == [3]
        assert probe.running == 1
        await worker.shutdown("hard")
        assert trio.current_time() == 6
        assert [event.mode for _, event in world.events] == ["warm", "soft", "hard", "hard"]


@pytest.mark.parametrize(
    ("first", "second", "takes"),
    [
        (("hard", None), ("warm", 100), 3),  # 3 is what the cleanup takes
        (("hard", None), ("soft", 100), 3),
        (("soft", 6), ("warm", 100), 9),
        (("soft", 6), ("soft", 100), 9),
        (("soft", 60), ("soft", 6), 63),
        (("warm", 6), ("warm", 100), 9),
        (("warm", 6), ("soft", 100), 9),  # a step up never gives more time than there was left
        (("warm", 60), ("soft", 6), 10),  # from when it was asked for, a second later
        (("warm", 60), ("hard", None), 4),
        (("soft", 60), ("hard", 50), 4),
    ],
)
async def test_never_less_urgent(world, autojump_clock, first, second, takes):
    """A second request can make a shutdown more urgent, and cannot do anything else."""
    probe = Probe(cleanup=3)
    job = probe.task()
    worker = world.worker(job)
    async with running(worker) as nursery:
        await world.enqueue(job)
        await wait_all_tasks_blocked()

        async def request(mode, grace):
            await worker.shutdown(mode, grace=grace)

        nursery.start_soon(request, *first)
        await trio.sleep(1)
        assert worker.state is WorkerState.DRAINING
        await request(*second)
        assert trio.current_time() == takes
        assert await world.places() == (1, 0, 0, 0)


async def test_request_while_only_settling_is_left(world, autojump_clock):
    """Once all runs have ended there is nothing to be more urgent about."""
    world.listen("worker_stopping", "worker_shutdown")
    probe = Probe(lasts=1)
    job = probe.task()
    worker = world.worker(job, lifecycle=config(force=10))
    world.faults.hang("broker.settle", times=1)
    async with running(worker) as nursery:
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        nursery.start_soon(worker.shutdown)
        await trio.sleep(2)
        await worker.shutdown("hard")
        # The call that hangs is given up after `store_timeout`, at 11, when the whole shutdown is over.
        assert trio.current_time() == 11
        assert await world.state(task_id) == "succeeded"
        assert [(name, event.mode) for name, event in world.events] == [
            ("worker_stopping", "warm"),
            ("worker_shutdown", "warm"),
        ]


# --- odd moments ----------------------------------------------------------------------------------------------------


async def test_shutdown_before_run(world, autojump_clock):
    """A worker that is stopped before it runs never runs, however it is started then."""
    world.listen("worker_init", "worker_ready", "worker_stopping", "worker_shutdown")
    worker = world.worker()
    await worker.shutdown()
    assert worker.state is WorkerState.STOPPED
    await worker.run()
    async with trio.open_nursery() as nursery:
        assert await nursery.start(worker.run) is worker
        await worker.start(nursery)
        nursery.start_soon(worker.run)
    async with worker:
        await worker.wait_ready()
    await worker.shutdown("hard")
    assert world.trace == []
    assert world.faults.trace == []


@pytest.mark.parametrize("number", range(4))  # which of the two is first is random
async def test_shutdown_races_with_start(world, autojump_clock, number):
    """G10: a worker whose task has not had its turn yet does not run after `shutdown` has returned."""
    worker = world.worker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        nursery.start_soon(worker.shutdown)
        if number % 2:
            await worker.shutdown()
    assert worker.state is WorkerState.STOPPED
    assert await world.memory_backend.list_heartbeats() == []


@pytest.mark.parametrize("mode", MODES)
async def test_shutdown_while_starting(world, autojump_clock, mode):
    """A worker that is stopped while it starts is never ready, and claims nothing."""
    world.listen("worker_init", "worker_ready", "worker_stopping", "worker_shutdown")
    release = trio.Event()
    world.signals.worker_init.connect(lambda _: release.wait())
    probe = Probe()
    job = probe.task()
    await world.enqueue(job)
    worker = world.worker(job)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await wait_all_tasks_blocked()
        assert worker.state is WorkerState.STARTING
        nursery.start_soon(worker.shutdown, mode)
        await wait_all_tasks_blocked()
        assert worker.state is WorkerState.DRAINING
        release.set()
    assert world.trace == ["worker_init", "worker_stopping", "worker_shutdown"]
    assert probe.began == []
    assert "broker.claim:after" not in world.faults.trace


async def test_listener_that_keeps_a_worker_from_starting(world, autojump_clock):
    """Not even a listener of `worker_init` that hangs holds a shutdown up for longer than its deadline."""
    world.signals.worker_init.connect(hang)
    worker = world.worker(lifecycle=config(grace=3, force=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await wait_all_tasks_blocked()
        assert await shut_down(worker) == 5


async def test_shutdown_again_and_again(world, autojump_clock):
    """Shutting down a worker that has stopped does nothing, at once."""
    worker = world.worker()
    async with running(worker):
        await worker.shutdown()
        for mode in MODES:
            assert await shut_down(worker, mode, grace=9) == 0


async def test_concurrent_shutdowns(world, autojump_clock):
    """Any number of callers may wait for the same end."""
    probe = Probe(lasts=5)
    job = probe.task()
    worker = world.worker(job)
    returned: list[float] = []

    async def stop() -> None:
        await worker.shutdown()
        returned.append(trio.current_time())

    async with running(worker):
        await world.enqueue(job)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(stop)
        assert returned == [5.0] * 10


async def test_shutdown_from_inside_a_handler(world, autojump_clock):
    """A handler that waits for the end of its own worker is cancelled like any other; one that does not wait ends."""
    workers = []

    @task
    async def waits() -> None:
        await workers[-1].shutdown(grace=4)

    @task
    async def asks() -> None:
        nurseries[-1].start_soon(workers[-1].shutdown)

    nurseries: list[trio.Nursery] = []
    for job, takes, state in [(waits, 4, "queued"), (asks, 0, "succeeded")]:
        began = trio.current_time()
        workers.append(world.worker(waits, asks, queue=job.name))
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            nursery.start_soon(workers[-1].run)
            task_id = await world.enqueue(job, queue=job.name)
        assert trio.current_time() - began == takes
        assert await world.state(task_id) == state


async def test_shutdown_whose_caller_is_cancelled_goes_on(world, autojump_clock):
    """Cancelling `shutdown` cancels the waiting, not the shutdown."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job)
    async with running(worker):
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await worker.shutdown(grace=5)
        assert scope.cancelled_caught
        assert worker.state is WorkerState.DRAINING
        await trio.sleep(4.01)
        assert worker.state is WorkerState.STOPPED
        assert await world.state(task_id) == "queued"


@pytest.mark.parametrize("bad", ["cold", "", 1, 3, None, b"warm"])
async def test_bad_mode_is_refused(world, bad):
    """G15: a mode that there is not is refused by name, and changes nothing."""
    worker = world.worker()
    async with running(worker):
        with pytest.raises(InvalidOptionError, match="mode="):
            await worker.shutdown(bad)
        assert worker.state is WorkerState.RUNNING


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "5", True])
async def test_bad_grace_is_refused(world, bad):
    """G15: so is a grace period that is none."""
    worker = world.worker()
    async with running(worker):
        with pytest.raises(InvalidOptionError, match="grace="):
            await worker.shutdown(grace=bad)
        assert worker.state is WorkerState.RUNNING


@pytest.mark.parametrize("name", ["soft_grace_period", "force_shutdown_after"])
@pytest.mark.parametrize("bad", [-1, float("nan"), "5", None])
def test_bad_config_is_refused(name, bad):
    """G15: durations of the configuration are checked, and named."""
    with pytest.raises(InvalidOptionError, match=f"{name}="):
        WorkerLifecycleConfig(**{name: bad})


def test_config_takes_timedeltas():
    """Durations are seconds or timedeltas."""
    lifecycle = WorkerLifecycleConfig(soft_grace_period=timedelta(minutes=2), force_shutdown_after=3)
    assert (lifecycle.grace, lifecycle.force_after) == (120.0, 3.0)
    assert lifecycle == WorkerLifecycleConfig(soft_grace_period=120, force_shutdown_after=3.0)


@pytest.mark.parametrize("mode", MODES)
async def test_claim_that_returns_while_stopping(world, autojump_clock, mode):
    """G10: what a claim brings in when the shutdown has begun is given back, and not started."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job)

    def stop() -> None:  # the claim has taken effect, and nothing can keep it from returning
        nursery.start_soon(worker.shutdown, mode)

    world.faults.at("broker.claim:after", stop)
    world.faults.at("broker.claim:after", wait_all_tasks_blocked_shielded)
    async with running(worker) as nursery:
        task_id = await world.enqueue(job)
        await worker.wait_settled()
        assert probe.began == []
        assert await world.places() == (1, 0, 0, 0)
        assert await world.state(task_id) == "queued"


# --- handlers that behave badly -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("inside", ["alone", "nursery"])
async def test_error_instead_of_cancellation(world, autojump_clock, mode, inside):
    """G7: an error that comes of being cancelled is no failure of the task."""

    @task(max_retries=0)
    async def job() -> None:
        async def work() -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                raise ConnectionError("the pool was closed") from None

        if inside == "alone":
            await work()
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                nursery.start_soon(trio.sleep_forever)

    worker = world.worker(job, lifecycle=config(grace=1))
    async with running(worker):
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        await worker.shutdown(mode)
        assert await world.state(task_id) == "queued"
        assert (await world.claim())[task_id].attempt == 0


async def test_result_in_spite_of_cancellation(world, autojump_clock):
    """A handler that ends its work although it was cancelled has done it: that is recorded, not done again."""

    @task
    async def job() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "saved"

    worker = world.worker(job)
    async with running(worker):
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        await worker.shutdown("hard")
        assert (await world.stem.wait_for_task(task_id, 0)).value == "saved"
        assert await world.places() == (0, 0, 0, 0)


async def test_failure_during_a_warm_shutdown(world, autojump_clock):
    """A failure within the grace period is a failure: the task is retried elsewhere, with one attempt less."""

    @task(max_retries=1)
    async def job() -> None:
        await trio.sleep(2)
        raise ValueError

    worker = world.worker(job, retry_strategy=ExponentialJitterRetryStrategy(base=60))
    async with running(worker):
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        assert await shut_down(worker) == 2
        assert await world.state(task_id) == "retrying"
        assert await world.places() == (0, 1, 0, 0)


# --- what stays alive -----------------------------------------------------------------------------------------------


async def test_leases_and_heartbeats_live_through_the_drain(world, autojump_clock):
    """G10, G4: leases are renewed and the worker beats until the last run has ended; the heartbeat goes last."""
    probe = Probe(lasts=25)
    job = probe.task(visibility_timeout=3)
    worker = world.worker(job, heartbeat_interval=4)
    async with running(worker) as nursery:
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        nursery.start_soon(worker.shutdown)
        for _ in range(5):
            await trio.sleep(4.5)
            [beat] = await world.memory_backend.list_heartbeats()
            assert (beat.worker, beat.state, beat.running, beat.in_flight) == (worker.id, "draining", 1, 1)
            assert trio.current_time() - (beat.sent_at - world.clock.now() + trio.current_time()) <= 4
            assert await world.claim() == {}
        await worker.shutdown()
        assert len(probe.began) == 1
        assert await world.state(task_id) == "succeeded"
    assert world.faults.trace[-2:] == ["backend.remove_heartbeat:before", "backend.remove_heartbeat:after"]
    last = max(i for i, point in enumerate(world.faults.trace) if point == "broker.settle:after")
    assert last < world.faults.trace.index("backend.remove_heartbeat:before")
    assert await world.memory_backend.list_heartbeats() == []


async def test_control_lives_through_the_drain(world, autojump_clock):
    """G10: a task can still be revoked while the worker drains."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job)
    async with running(worker) as nursery:
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        nursery.start_soon(worker.shutdown)
        await trio.sleep(2)
        assert await world.stem.revoke(task_id, reason="no longer needed")
        await worker.shutdown()
        assert trio.current_time() == 2
        assert (await world.status(task_id)).reason == "no longer needed"
        assert await world.state(task_id) == "revoked"


async def test_listeners_hear_everything_before_the_end(world, autojump_clock):
    """`shutdown` returns when slow listeners, too, have been told how the last runs ended."""
    heard: list[str] = []

    @world.signals.task_postrun.connect
    async def slow(event) -> None:
        await trio.sleep(1)
        heard.append(event.task_id)

    @task
    async def job() -> None:
        pass

    worker = world.worker(job)
    async with running(worker):
        ids = [await world.enqueue(job) for _ in range(4)]
        await wait_all_tasks_blocked()
        await worker.shutdown()
        assert sorted(heard) == sorted(ids)


async def test_listener_that_hangs(world, autojump_clock):
    """G10: a listener that hangs cannot hold a shutdown up for longer than its deadline."""
    world.signals.task_postrun.connect(hang)

    @task
    async def job() -> None:
        pass

    worker = world.worker(job, lifecycle=config(force=10))
    async with running(worker):
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
        assert await shut_down(worker) == 10
        assert await world.state(task_id) == "succeeded"
        assert await world.places() == (0, 0, 0, 0)


async def test_listener_of_the_very_end_that_hangs(world, autojump_clock):
    """The listeners of `worker_shutdown` have `listener_timeout` altogether."""
    world.signals.worker_shutdown.connect(hang)
    worker = world.worker()
    async with running(worker):
        assert await shut_down(worker) == world.signals.listener_timeout
    world.listener_errors.clear()


@pytest.mark.parametrize(
    ("signal", "takes"),
    [("task_succeeded", 10), ("task_prerun", 30), ("worker_ready", 0), ("worker_init", 30)],
)
async def test_listener_that_waits_for_its_own_worker(world, autojump_clock, signal, takes):
    """G10: a listener that shuts the worker down, and waits for that, waits for itself, but not for ever."""

    @task
    async def job() -> None: ...

    worker = world.worker(job)

    @getattr(world.signals, signal).connect
    async def stop(event) -> None:
        await worker.shutdown()

    await world.enqueue(job)
    await worker.run()
    assert trio.current_time() == takes
    assert await world.places() == ((0, 0, 0, 0) if signal == "task_succeeded" else (1, 0, 0, 0))
    world.listener_errors.clear()


# --- afterwards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "cancel"])
async def test_nothing_is_left(world, autojump_clock, mode):
    """G10: after a shutdown of a busy worker nothing runs, nothing is held, nothing happens any more."""
    probe, obeying = Probe(cleanup=1), Probe(obeys=True)

    @task(max_retries=5)
    async def failing() -> None:
        raise ValueError

    @task
    async def parent(context: TaskContext) -> None:
        await failing.enqueue(context)

    tasks = [probe.task("probe"), obeying.task("obeying"), failing, parent]
    worker = world.worker(
        *tasks, concurrency=5, prefetch=3, retry_strategy=ExponentialJitterRetryStrategy(base=1), heartbeat_interval=2
    )
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        await worker.start(nursery)
        ids = [await world.enqueue(job) for job in tasks * 3]
        await world.enqueue(failing, delay=100)
        await trio.sleep(3.5)
        if mode == "cancel":
            nursery.cancel_scope.cancel()
        else:
            await worker.shutdown(mode, grace=5)
            assert not nursery.child_tasks
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert worker.state is WorkerState.STOPPED
    assert worker.in_flight == 0
    assert probe.running == obeying.running == 0
    assert (await world.places())[2] == 0
    count = len(world.faults.trace)
    await trio.sleep(1000)
    assert len(world.faults.trace) == count
    states = {task_id: await world.state(task_id) for task_id in ids}
    assert set(states.values()) <= {"queued", "retrying", "succeeded"}
    ready, delayed, _, dead = await world.places()
    waiting = sum(state in {"queued", "retrying"} for state in states.values())
    assert ready + delayed >= waiting
    assert dead == 0


# --- cancelled from outside -----------------------------------------------------------------------------------------


async def test_cancelling_the_nursery_is_a_hard_shutdown(world, autojump_clock):
    """G10: whoever is cancelled together with a worker leaves no task behind that is not given back."""
    world.listen("worker_stopping", "worker_shutdown")
    probe = Probe(cleanup=2)
    job = probe.task()
    worker = world.worker(job)
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            await worker.start(nursery)
            task_id = await world.enqueue(job)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 7
    assert worker.state is WorkerState.STOPPED
    assert await world.places() == (1, 0, 0, 0)
    assert await world.state(task_id) == "queued"
    assert [event.mode for _, event in world.events] == ["hard", "hard"]
    assert await world.memory_backend.list_heartbeats() == []


async def test_cancelling_is_bounded(world, autojump_clock):
    """The shield of a cancelled worker lasts for `force_shutdown_after`, whatever the stores do."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job, lifecycle=config(grace=1000, force=7), store_timeout=500)
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            await worker.start(nursery)
            await world.enqueue(job)
            await trio.sleep(1)
            for operation in ("broker.settle", "backend.record", "backend.remove_heartbeat"):
                world.faults.hang(operation)
            await trio.sleep_forever()
    assert trio.current_time() == 12


async def test_cancelling_during_a_warm_shutdown(world, autojump_clock):
    """Cancellation cuts a drain short."""
    probe = Probe()
    job = probe.task()
    worker = world.worker(job)
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            await worker.start(nursery)
            await world.enqueue(job)
            await trio.sleep(1)
            await worker.shutdown()
    assert trio.current_time() == 5
    assert await world.places() == (1, 0, 0, 0)


async def test_cancelled_before_it_has_begun(world, autojump_clock):
    """A worker that is run by someone who is cancelled already does nothing at all."""
    world.listen("worker_init", "worker_shutdown")
    probe = Probe()
    job = probe.task()
    await world.enqueue(job)
    worker = world.worker(job)
    with trio.CancelScope() as scope:
        scope.cancel()
        await worker.run()
    assert scope.cancelled_caught
    assert worker.state is WorkerState.STOPPED
    assert await world.places() == (1, 0, 0, 0)
    assert probe.began == []
    assert world.trace == []
    assert world.faults.trace == []


# --- parts that fail ------------------------------------------------------------------------------------------------


class BugError(Exception):
    """Something that nobody has thought of."""


PARTS = (
    "broker.claim:before",
    "broker.claim:after",
    "broker.renew:before",
    "broker.subscribe:before",
    "broker.receive:before",
    "backend.record:before",
    "backend.put_heartbeat:before",
)


@pytest.mark.parametrize("error", [StoreError, BugError])
@pytest.mark.parametrize("point", PARTS)
async def test_failure_of_a_part_ends_the_worker(world, autojump_clock, point, error):
    """An error that is not the handler's ends the worker: it is raised as it is, and tasks are given back."""
    world.listen("worker_shutdown")
    probe = Probe(cleanup=1)
    job = probe.task(visibility_timeout=6)
    task_id = await world.enqueue(job)
    worker = world.worker(job, heartbeat_interval=1)

    def fail() -> None:
        try:
            raise OSError("the reason")
        except OSError as reason:
            raise error("broken") from reason

    # Each of these points is passed again in any run of some seconds, the claim when a second task wants to be taken.
    once = point in {"broker.subscribe:before", "broker.receive:before", "backend.record:before"}
    world.faults.at(point, fail, skip=0 if once else 1, times=1)
    async with trio.open_nursery() as nursery:

        async def enqueue_another() -> None:
            await trio.sleep(0.5)
            await world.enqueue(job, delay=1)

        nursery.start_soon(enqueue_another)
        with pytest.raises(error, match="broken") as caught:
            await worker.run()
    assert isinstance(caught.value.__cause__, OSError)
    assert worker.state is WorkerState.STOPPED
    assert probe.running == 0
    assert world.event("worker_shutdown").mode == "hard"
    assert await world.memory_backend.list_heartbeats() == []
    if point == "broker.claim:after":
        await trio.sleep(7)  # what was claimed there is nobody's to give back
    assert (await world.places())[2] == 0
    assert await world.state(task_id) == "queued"


@pytest.mark.parametrize("point", ["broker.claim:before", "backend.put_heartbeat:before"])
async def test_error_instead_of_cancellation_when_a_part_fails(world, autojump_clock, point):
    """G7: an error that comes of the worker's own end is no failure of the task either."""

    @task(max_retries=0)
    async def job() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise ConnectionError("the pool was closed") from None

    async def fail() -> None:
        await trio.sleep(3)
        raise BugError

    task_id = await world.enqueue(job)
    world.faults.at(point, fail, skip=1)
    with pytest.raises(BugError):
        await world.worker(job).run()
    assert await world.state(task_id) == "queued"
    assert await world.places() == (1, 0, 0, 0)


async def test_failure_of_a_part_is_a_hard_shutdown(world, autojump_clock):
    """G10: handlers that cannot be cancelled are asked to end when a part fails, as in any hard shutdown."""
    ended = []

    @task
    async def shielded(context: TaskContext) -> None:
        with trio.CancelScope(shield=True):  # stands for a thread
            await context.cancelled.wait()
        ended.append(trio.current_time())

    async def fail() -> None:
        await trio.sleep(3)
        raise BugError

    task_id = await world.enqueue(shielded)
    world.faults.at("backend.put_heartbeat:before", fail)
    with pytest.raises(BugError):
        await world.worker(shielded).run()
    assert ended == [3]
    assert await world.state(task_id) == "succeeded"


@pytest.mark.parametrize("error", [StoreError, BugError])
async def test_broker_that_can_settle_nothing(world, autojump_clock, error):
    """A worker whose broker refuses to settle ends with that error, and withdraws its heartbeat all the same."""
    slow, quick = Probe(), Probe(lasts=2)
    tasks = [slow.task("slow", visibility_timeout=10), quick.task("quick", visibility_timeout=10)]
    worker = world.worker(*tasks)

    def fail() -> None:
        raise error("broken")

    world.faults.at("broker.settle:before", fail)
    ids = [await world.enqueue(job) for job in tasks]
    with pytest.raises(error, match="broken"):
        await worker.run()
    assert trio.current_time() == 2
    assert slow.running == 0
    assert await world.memory_backend.list_heartbeats() == []
    assert await world.places() == (0, 0, 2, 0)
    world.faults.clear()
    slow.lasts = 1
    other = world.worker(*tasks)
    async with running(other):
        await trio.sleep(20)
        assert [await world.state(task_id) for task_id in ids] == ["succeeded", "succeeded"]
        await other.shutdown()


async def test_two_parts_that_fail_together(world, autojump_clock):
    """Where several things fail beside each other, a group tells of all of them."""
    worker = world.worker()

    async def fail() -> None:
        await trio.sleep(1)
        raise BugError

    async def fail_over_it() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise StoreError

    world.faults.at("backend.put_heartbeat:before", fail)
    world.faults.at("broker.subscribe:before", fail_over_it)
    with pytest.RaisesGroup(BugError, StoreError, flatten_subgroups=True):
        await worker.run()


@pytest.mark.parametrize("point", ["broker.claim:before", "backend.put_heartbeat:before"])
@pytest.mark.parametrize("hangs", ["broker.settle", "backend.record"])
async def test_failure_is_told_when_settling_runs_out_of_time(world, autojump_clock, point, hangs):
    """An error of a part comes out of `run` although what it left behind cannot be settled in time."""
    probe = Probe()
    job = probe.task()
    quick = Probe(lasts=2.5).task("quick")
    await world.enqueue(job)
    await world.enqueue(quick)

    async def fail() -> None:
        await trio.sleep(3)
        raise BugError

    worker = world.worker(job, quick, lifecycle=config(force=10), store_timeout=100)
    world.faults.hang(hangs, skip=1)
    world.faults.at(point, fail, skip=1)
    with pytest.raises(BugError):
        await worker.run()
    assert probe.running == 0


async def test_failure_while_the_nursery_is_cancelled(world, autojump_clock):
    """An error on the way out is not swallowed by the cancellation that is on its way, either."""
    probe = Probe()
    job = probe.task()
    await world.enqueue(job)
    worker = world.worker(job)

    def fail() -> None:
        raise BugError

    world.faults.at("broker.settle:before", fail)
    with pytest.RaisesGroup(BugError, flatten_subgroups=True):
        with trio.move_on_after(3):
            await worker.run()
    assert worker.state is WorkerState.STOPPED


# --- running it once ------------------------------------------------------------------------------------------------


async def test_worker_runs_once(world, autojump_clock):
    """A worker that has been run, or is, cannot be run again."""
    worker = world.worker()
    async with running(worker) as nursery:
        for attempt in (worker.run, worker.__aenter__):
            with pytest.raises(WorkerStateError, match="has been run before"):
                await attempt()
        with pytest.raises(WorkerStateError, match="has been run before"):
            await worker.start(nursery)
        assert worker.state is WorkerState.RUNNING
        await worker.shutdown()
        with pytest.raises(WorkerStateError, match="has been run before"):
            await worker.run()


async def test_async_with(world, autojump_clock):
    """`async with worker` runs it for the block: ready at its beginning, drained at its end."""
    probe = Probe(lasts=5)
    job = probe.task()
    worker = world.worker(job)
    async with worker as entered:
        assert entered is worker
        assert worker.state is WorkerState.RUNNING
        task_id = await world.enqueue(job)
        await wait_all_tasks_blocked()
    assert worker.state is WorkerState.STOPPED
    assert trio.current_time() == 5
    assert await world.state(task_id) == "succeeded"


async def test_async_with_stopped_in_its_block(world, autojump_clock):
    """The block may shut the worker down itself."""
    worker = world.worker()
    async with worker:
        await worker.shutdown()
    assert worker.state is WorkerState.STOPPED


BODY_ERRORS = {
    "error": BugError("mine"),
    "exit": SystemExit(3),
    "group": ExceptionGroup("mine", [BugError("a"), ValueError("b")]),
    "group of one": ExceptionGroup("mine", [BugError("a")]),
    "nested": ExceptionGroup("mine", [ExceptionGroup("inner", [BugError("a")])]),
}


@pytest.mark.parametrize("error", BODY_ERRORS.values(), ids=BODY_ERRORS)
async def test_async_with_whose_body_fails(world, autojump_clock, error):
    """An error in the block is a hard shutdown, and comes out as it is, with its own cause."""
    cause = OSError("cause")
    probe = Probe()
    job = probe.task()
    with pytest.raises(type(error)) as caught:
        async with world.worker(job):
            task_id = await world.enqueue(job)
            await trio.sleep(2)
            raise error from cause
    # Of groups trio makes copies whenever it looks for cancellations in them.
    assert caught.value is error or isinstance(error, ExceptionGroup)
    assert repr(caught.value) == repr(error)
    assert caught.value.__cause__ is cause
    assert trio.current_time() == 2
    assert await world.state(task_id) == "queued"
    assert await world.places() == (1, 0, 0, 0)


async def test_async_with_keeps_the_context_of_an_error(world, autojump_clock):
    """Nor does the error get another context than it had."""
    with pytest.raises(BugError) as caught:
        async with world.worker():
            try:
                raise OSError("first")
            except OSError:
                raise BugError  # noqa: B904 - the context is what this is about
    assert isinstance(caught.value.__context__, OSError)
    assert not caught.value.__suppress_context__


async def test_async_with_whose_worker_fails(world, autojump_clock):
    """A worker that fails cancels the block, and its error comes out of it."""

    def fail() -> None:
        raise BugError("of the worker")

    world.faults.at("backend.put_heartbeat:before", fail, skip=1)
    with pytest.raises(BugError, match="of the worker"):
        async with world.worker(heartbeat_interval=3):
            await trio.sleep_forever()
    assert trio.current_time() == 3


async def test_async_with_that_is_cancelled(world, autojump_clock):
    """A cancellation of the block goes through it."""
    with trio.move_on_after(2) as scope:
        async with world.worker():
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_async_with_that_cannot_start(world, autojump_clock):
    """An error at the start comes out of the block's beginning."""

    def fail() -> None:
        raise BugError

    world.faults.at("broker.subscribe:before", fail)
    with pytest.raises(BugError):
        async with world.worker():
            await trio.sleep_forever()


# --- threads, on the real clock -------------------------------------------------------------------------------------


async def test_threads_are_waited_for(world):
    """G10: a shutdown waits for a handler in a thread, which it cannot cancel, and records what it returns."""
    began, finish = threading.Event(), threading.Event()

    @task
    def job() -> str:
        began.set()
        assert finish.wait(30)
        return "done"

    worker = world.worker(job)
    async with running(worker) as nursery:
        task_id = await world.enqueue(job)
        await trio.to_thread.run_sync(began.wait, 30)
        nursery.start_soon(worker.shutdown, "hard")
        await wait_all_tasks_blocked()
        assert worker.state is WorkerState.DRAINING
        finish.set()
        await worker.shutdown()
        assert (await world.stem.wait_for_task(task_id, 0)).value == "done"
        assert await world.places() == (0, 0, 0, 0)


@pytest.mark.parametrize("mode", MODES)
async def test_threads_are_asked_to_end(world, mode):
    """A handler in a thread that looks at `cancelled` comes to its end in every mode, also when grace is over."""
    looks = 0

    @task
    def job(context: TaskContext) -> str:
        nonlocal looks
        while not context.cancelled.is_set():
            looks += 1
            began.set()
            time.sleep(0.001)
        return "asked"

    began = threading.Event()
    worker = world.worker(job, lifecycle=config(grace=0.05, force=30))
    async with running(worker):
        task_id = await world.enqueue(job)
        await trio.to_thread.run_sync(began.wait, 30)
        await worker.shutdown(mode)
        assert (await world.stem.wait_for_task(task_id, 0)).value == "asked"


async def test_thread_that_outlasts_everything(world, caplog):
    """A thread that runs on is left to itself, and its task is not given back for others to run beside it."""
    began, finish, ended = threading.Event(), threading.Event(), threading.Event()

    @task
    def job() -> None:
        began.set()
        finish.wait(30)
        ended.set()

    worker = world.worker(job, lifecycle=config(grace=0, force=0.05))
    async with running(worker):
        task_id = await world.enqueue(job)
        await trio.to_thread.run_sync(began.wait, 30)
        await worker.shutdown()
        assert await world.places() == (0, 0, 1, 0)
        assert f"({task_id}) was given up, but runs on in its thread" in caplog.text
        finish.set()
        await trio.to_thread.run_sync(ended.wait, 30)
        assert await world.places() == (0, 0, 1, 0)


@pytest.mark.parametrize("hangs", [False, True])
async def test_last_events_of_a_settler_that_fails(world, autojump_clock, hangs):
    """G8: what is settled at the very end is told to listeners that need not wait, even if no time is left for more."""
    job = Probe(lasts=1).task()
    worker = world.worker(job, lifecycle=config(force=3), store_timeout=100)
    heard = []
    world.signals.task_succeeded.connect(lambda event: heard.append(event.task_id))
    if hangs:
        world.faults.at("backend.remove_heartbeat:before", trio.sleep_forever)

    def broken():
        raise StoreError("broken")

    world.faults.at("broker.settle:before", broken, times=1)
    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="broken"), flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await worker.start(nursery)
            task_id = await world.enqueue(job)
    assert worker.state is WorkerState.STOPPED
    assert heard == [task_id]
    assert await world.state(task_id) == "succeeded"
    assert await world.places() == (0, 0, 0, 0)
