"""Sync handlers run in threads, which cannot be cancelled. On the real clock: the fake one jumps meanwhile."""

from __future__ import annotations

import logging
import threading
from functools import partial

import pytest
import trio
import trio.testing

from stem_trio import (
    FunctionTaskHandler,
    ShutdownMode,
    StoreError,
    TaskContext,
    TaskState,
    WorkerLifecycleConfig,
    WorkerState,
    task,
)
from stem_trio.testing.faults import Faults
from stem_trio.worker.run import _ThreadPlace

PATIENCE = 20
"""Seconds after which a test that hangs fails; none of them takes nearly as long."""


class Gate:
    """Where threads tell that they have come, and wait to be let go."""

    def __init__(self):
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._came = trio.Event()
        self.waiting = 0
        self.peak = 0
        self.passed = 0

    def enter(self):
        """In a thread: come, wait, go."""
        with self._lock:
            self.waiting += 1
            self.peak = max(self.peak, self.waiting)
        self._token.run_sync_soon(self._tell)
        assert self._open.wait(PATIENCE)
        with self._lock:
            self.waiting -= 1
            self.passed += 1
        self._token.run_sync_soon(self._tell)

    def _tell(self):
        self._came.set()
        self._came = trio.Event()

    async def until(self, condition):
        """On the loop: wait until it is true of the gate."""
        while not condition():
            await self._came.wait()

    def open(self):
        """Let everybody go, now and from now on."""
        self._open.set()


@pytest.fixture
async def gate():
    """A gate that is open in the end, whatever becomes of the test."""
    gate = Gate()
    yield gate
    gate.open()


async def until_ended(worker, count):
    """Wait until so many runs of a worker have ended."""
    while sum(worker.totals.values()) < count:
        await worker.wait_settled()


async def until_draining(worker):
    """Wait until a worker has been asked to stop."""
    await worker._state.wait_value(WorkerState.DRAINING)


# --- as usual -----------------------------------------------------------------------------------------------------


async def test_sync_handlers_run_in_threads(rig):
    """A plain function runs beside the loop, with its context; what it returns or raises counts as for any other."""

    @task(name="blocking")
    def blocking(context: TaskContext, fail: bool) -> list:
        if fail:
            raise OSError("disk")
        return [context.attempt, threading.get_ident()]

    async with rig.worker(blocking) as worker:
        attempt, thread = await (await rig.enqueue(blocking, False)).result(timeout=PATIENCE)
        failed = await (await rig.enqueue(blocking, True)).wait(timeout=PATIENCE)
    assert attempt == 0
    assert thread != threading.get_ident()
    assert (failed.state, failed.error.type, failed.error.message) == (TaskState.FAILED, "OSError", "disk")
    assert (worker.totals["succeeded"], worker.totals["failed"]) == (1, 1)


async def test_sync_entrypoint(rig):
    """So does a plain entrypoint of a `FunctionTaskHandler`."""
    handler = FunctionTaskHandler("where", lambda context, args: threading.get_ident())
    worker = rig.worker(handler)
    task_id = await worker.stem.enqueue("where")
    async with worker:
        assert (await rig.stem.wait_for_task(task_id, timeout=PATIENCE)).value != threading.get_ident()


async def test_threads_call_back_into_the_loop(rig):
    """A sync handler reaches the async part of its context through trio's own bridge."""

    @task(name="child")
    async def child() -> str:
        return "grown up"

    @task(name="bridge")
    def bridge(context: TaskContext) -> str:
        trio.from_thread.run(context.progress, 50)
        trio.from_thread.run(context.heartbeat)
        trio.from_thread.run(partial(context.extend_lease, 60))
        return trio.from_thread.run(context.enqueue, "child")

    async with rig.worker(bridge, child):
        child_id = await (await rig.enqueue(bridge)).result(timeout=PATIENCE)
        assert (await rig.stem.wait_for_task(child_id, timeout=PATIENCE)).value == "grown up"
    assert rig.faults.trace.count("broker.renew:before") == 2


async def test_a_thread_for_each_slot_and_no_more(rig, gate):
    """G9: as many threads as slots, however much is waiting."""

    @task(name="blocking")
    def blocking() -> None:
        gate.enter()

    ids = await rig.enqueue_many(blocking, 7)
    with trio.fail_after(PATIENCE):
        async with rig.worker(blocking, concurrency=3, prefetch=2) as worker:
            await gate.until(lambda: gate.waiting == 3)
            await trio.testing.wait_all_tasks_blocked()
            assert worker._holdings.running == 3
            assert await rig.places() == (2, 0, 5, 0)
            gate.open()
            for task_id in ids:
                await rig.stem.wait_for_task(task_id, timeout=PATIENCE)
    assert gate.peak == 3
    assert gate.passed == 7
    assert worker.totals["succeeded"] == 7


# --- that outlive what they were for --------------------------------------------------------------------------------


async def test_thread_that_outlives_its_lease(rig, gate, caplog):
    """G4: when the lease is lost the thread runs out, its outcome is refused, the log names it; the next run counts."""

    @task(name="stuck", visibility_timeout=0.2, max_strikes=100)
    def stuck(context: TaskContext) -> str:
        if context.deliveries == 1:
            gate.enter()
            return "too late"
        return "in time"

    rig.listen("task_lease_lost", "task_succeeded")
    rig.faults.fail("broker.renew")
    rig.signals.task_lease_lost.connect(lambda event: rig.faults.clear())
    with trio.fail_after(PATIENCE), caplog.at_level(logging.WARNING, logger="stem_trio.worker.run"):
        async with rig.worker(stuck, concurrency=2) as worker:
            handle = await rig.enqueue(stuck)
            await gate.until(lambda: gate.waiting == 1)
            assert await handle.result(timeout=PATIENCE) == "in time"
            gate.open()
            await gate.until(lambda: gate.passed == 1)
            # The thread has passed the gate, but not yet told the loop that it has ended.
            await gate.until(lambda: worker._fetcher._runner._threads.borrowed_tokens == 0)
            assert await handle.result(timeout=PATIENCE) == "in time"
    assert f"task stuck ({handle.id}) was given up, but runs on in its thread" in caplog.text
    assert rig.heard.count("task_succeeded") == 1
    assert rig.heard[0] == "task_lease_lost"


async def test_revoked_thread(rig, gate, caplog):
    """G8: revoking a task whose handler is in a thread ends the task at once; the thread runs out, for nothing."""

    @task(name="stuck")
    def stuck() -> str:
        gate.enter()
        return "unwanted"

    with trio.fail_after(PATIENCE), caplog.at_level(logging.WARNING, logger="stem_trio.worker.run"):
        async with rig.worker(stuck) as worker:
            handle = await rig.enqueue(stuck)
            await gate.until(lambda: gate.waiting == 1)
            await handle.revoke(reason="enough")
            assert (await handle.wait(timeout=PATIENCE)).state is TaskState.REVOKED
            assert gate.waiting == 1
            gate.open()
            await gate.until(lambda: gate.passed == 1)
    assert (await rig.status(handle)).state is TaskState.REVOKED
    assert worker.totals["revoked"] == 1
    assert "runs on in its thread" in caplog.text


async def test_thread_at_its_hard_limit(rig, gate, caplog):
    """A thread past the hard limit is left to itself, and the task is retried: a limit that waited would be none."""

    @task(name="stuck", hard_time_limit=0.02, max_retries=100)
    def stuck(context: TaskContext) -> str:
        if context.attempt == 0:
            gate.enter()
            return "too late"
        return "second time"

    rig.listen("task_retry")
    with trio.fail_after(PATIENCE), caplog.at_level(logging.WARNING, logger="stem_trio.worker.run"):
        async with rig.worker(stuck) as worker:
            handle = await rig.enqueue(stuck)
            assert await handle.result(timeout=PATIENCE) == "second time"
            assert gate.waiting == 1
            gate.open()
            await gate.until(lambda: gate.passed == 1)
    assert {event.error.type for _, event in rig.events} == {"stem_trio.errors.HardTimeLimitError"}
    assert "runs on in its thread" in caplog.text
    assert worker.totals["succeeded"] == 1


async def test_places_of_given_up_threads(rig, gate):
    """G9: a thread that was given up keeps its place until it ends; there are never more threads than slots."""

    @task(name="stuck")
    def stuck() -> None:
        gate.enter()

    @task(name="next")
    def following() -> str:
        return "after it"

    with trio.fail_after(PATIENCE):
        async with rig.worker(stuck, following, concurrency=1) as worker:
            handle = await rig.enqueue(stuck)
            await gate.until(lambda: gate.waiting == 1)
            await handle.revoke()
            second = await rig.enqueue(following)
            await until_ended(worker, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert worker._holdings.running == 1
            gate.open()
            assert await second.result(timeout=PATIENCE) == "after it"


async def test_shutdown_of_a_call_that_has_no_thread_yet(rig, gate, caplog):
    """G10: what only waits for a thread has not begun: a hard shutdown gives it back at once."""

    @task(name="stuck")
    def stuck() -> None:
        gate.enter()

    @task(name="next")
    def following() -> str:
        return "never here"

    with trio.fail_after(PATIENCE), caplog.at_level(logging.WARNING, logger="stem_trio.worker.run"):
        async with rig.worker(stuck, following, concurrency=1) as worker:
            handle = await rig.enqueue(stuck)
            await gate.until(lambda: gate.waiting == 1)
            await handle.revoke()
            await until_ended(worker, 1)
            await rig.enqueue(following)
            await trio.testing.wait_all_tasks_blocked()
            await worker.shutdown("hard")
    assert await rig.places() == (1, 0, 0, 0)
    assert worker.totals["released"] == 1
    assert caplog.text.count("runs on in its thread") == 1


async def test_cancelled_between_the_place_and_the_thread(rig, monkeypatch, caplog):
    """A call that is cancelled just before its thread is started gives its place back, and is not said to run on."""
    wait_free = _ThreadPlace.wait_free
    contexts = []

    async def cancelled_then(self):
        await wait_free(self)
        contexts[-1].cancel_scope.cancel()

    @task(name="unlucky")
    def unlucky() -> None:
        raise AssertionError("never started")

    rig.signals.task_prerun.connect(lambda event: contexts.append(event.context))
    monkeypatch.setattr(_ThreadPlace, "wait_free", cancelled_then)
    with trio.fail_after(PATIENCE), caplog.at_level(logging.WARNING, logger="stem_trio.worker.run"):
        async with rig.worker(unlucky, concurrency=1) as worker:
            result = await (await rig.enqueue(unlucky)).wait(timeout=PATIENCE)
            assert worker._fetcher._runner._threads.borrowed_tokens == 0
    assert result.error.message == "the handler cancelled its own scope"
    assert "runs on" not in caplog.text


# --- and shutdown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["warm", "hard"])
@pytest.mark.parametrize("fail", [False, True])
async def test_shutdown_waits_for_threads(rig, gate, mode, fail):
    """G10: a thread cannot be cancelled, so a shutdown waits for it, and records what came of it."""

    @task(name="blocking")
    def blocking() -> str:
        gate.enter()
        if fail:
            raise ValueError("a real failure, not one of the shutdown")
        return "finished"

    with trio.fail_after(PATIENCE):
        async with rig.worker(blocking) as worker, trio.open_nursery() as nursery:
            handle = await rig.enqueue(blocking)
            await gate.until(lambda: gate.waiting == 1)
            nursery.start_soon(worker.shutdown, mode)
            await until_draining(worker)
            await trio.testing.wait_all_tasks_blocked()
            assert worker.in_flight == 1
            gate.open()
    status = await rig.status(handle)
    assert status.state is (TaskState.FAILED if fail else TaskState.SUCCEEDED)
    assert worker.totals["failed" if fail else "succeeded"] == 1
    assert await rig.places() == (0, 0, 0, int(fail))


async def test_cancelled_worker_waits_for_threads(rig, gate):
    """G10: cancelling whoever runs the worker is a hard shutdown: threads are waited for there, too."""

    @task(name="blocking")
    def blocking() -> str:
        gate.enter()
        return "finished"

    with trio.fail_after(PATIENCE):
        handle = await rig.enqueue(blocking)
        worker = rig.worker(blocking)
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.run)
            await gate.until(lambda: gate.waiting == 1)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await until_draining(worker)
                gate.open()
    assert (await rig.status(handle)).state is TaskState.SUCCEEDED


async def test_kill_abandons_threads_to_the_end_of_their_lease(rig, gate, caplog):
    """G10: a thread that is still at work at the very end is left alone, and its task, which must not run beside it,

    comes back when its lease ends, with a strike.
    """

    @task(name="stuck", visibility_timeout=0.3)
    def stuck() -> None:
        gate.enter()

    lifecycle = WorkerLifecycleConfig(soft_grace_period=0.02, force_shutdown_after=0.4)  # renewed several times
    with trio.fail_after(PATIENCE), caplog.at_level(logging.WARNING, logger="stem_trio.worker.run"):
        await rig.enqueue(stuck)
        async with rig.worker(stuck, lifecycle=lifecycle) as worker:
            await gate.until(lambda: gate.waiting == 1)
            await worker.shutdown("warm")
            assert gate.waiting == 1
            [delivery] = await rig.broker.claim(["default"], consumer="next", limit=1, wait=PATIENCE)
    assert (delivery.strikes, delivery.deliveries, delivery.attempt) == (1, 2, 0)
    assert worker.totals["lease_lost"] == 1
    assert worker.in_flight == 0
    assert "runs on in its thread" in caplog.text


async def test_thread_and_a_part_of_the_worker_that_fails(rig, gate):
    """G10: a worker that fails waits for its threads no longer than a hard shutdown would, however long the lease."""

    @task(name="stuck", visibility_timeout=86_400)
    def stuck() -> None:
        gate.enter()

    faults = Faults()
    lifecycle = WorkerLifecycleConfig(force_shutdown_after=0.02)
    await rig.enqueue(stuck)
    worker = rig.worker(stuck, faults=faults, lifecycle=lifecycle, heartbeat_interval=0.05)

    def broken():
        raise StoreError("out of disk")

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            async def run():
                with pytest.raises(StoreError, match="out of disk"):
                    await worker.run()

            nursery.start_soon(run)
            await gate.until(lambda: gate.waiting == 1)
            faults.at("backend.put_heartbeat:before", broken)
    assert worker._shutdown.mode is ShutdownMode.HARD
    assert gate.waiting == 1


async def test_hard_shutdown_starts_no_thread(rig, gate):
    """G10: a delivery that was to start in the very moment of a hard shutdown is given back, unstarted."""

    @task(name="blocking")
    def blocking() -> None:
        raise AssertionError("never started")

    await rig.enqueue(blocking)
    rig.listen("task_released")
    worker = rig.worker(blocking)
    start_waiting = trio.Nursery.start_soon

    def hard_in_between(nursery, function, *args, **options):
        start_waiting(nursery, function, *args, **options)
        if getattr(function, "__name__", "") == "_run":
            worker._shutdown.request(ShutdownMode.HARD)

    with trio.fail_after(PATIENCE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trio.Nursery, "start_soon", hard_in_between)
            await worker.run()
    assert await rig.places() == (1, 0, 0, 0)
    assert worker.totals["released"] == 1
    assert rig.event("task_released").started is False
