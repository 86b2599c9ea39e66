"""The parts of a worker that live beside its runs: control messages, heartbeats, running statuses."""

from __future__ import annotations

import os
import socket

import pytest
import trio
import trio.testing

from stem_trio import InMemoryResultBackend, TaskContext, TaskState, task
from stem_trio.control import CONTROL_CHANNEL, RevokeTasks, encode_control
from stem_trio.worker.held import Cause, Holdings
from stem_trio.worker.setup import Backoff


@pytest.fixture
def endless(ledger):
    """A task that ends when it is made to."""

    @task(name="endless")
    async def endless(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep_forever()

    return endless


# --- control ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no json",
        b'{"type": "revoke"}',
        b'{"type": "revoke", "ids": [1]}',
        b'{"type": "of a newer version", "ids": ["x"]}',
        b'{"type": "revoke", "ids": ["\xff"]}',
        b'{"type": "revoke", "ids": ' + b"[" * 100_000,
        b'{"type": "revoke", "other": ' + b"[" * 100_000,
    ],
    ids=range(8),
)
async def test_message_that_cannot_be_read(rig, endless, autojump_clock, caplog, message):
    """A control message that is none, or of a newer version, is ignored; the next one is heeded."""
    handle = await rig.enqueue(endless)
    async with rig.worker(endless):
        await trio.testing.wait_all_tasks_blocked()
        await rig.broker.broadcast(CONTROL_CHANNEL, message)
        await trio.testing.wait_all_tasks_blocked()
        assert (await rig.status(handle)).state is TaskState.RUNNING
        await handle.revoke()
        assert (await handle.wait(timeout=1)).state is TaskState.REVOKED
    assert caplog.text.count("ignoring a control message that cannot be read") == 1


async def test_one_message_for_many_tasks(rig, endless, autojump_clock):
    """One message may revoke several tasks, of which the worker heeds those that it holds."""
    ids = await rig.enqueue_many(endless, 4)
    async with rig.worker(endless, concurrency=3, prefetch=1) as worker:
        await trio.testing.wait_all_tasks_blocked()
        message = RevokeTasks((*ids[:2], "unknown", ids[3]), "spring cleaning")
        await rig.broker.broadcast(CONTROL_CHANNEL, encode_control(message))
        await trio.testing.wait_all_tasks_blocked()
        assert worker.totals["revoked"] == 3
        assert (await rig.status(ids[0])).reason == "spring cleaning"
        assert worker.in_flight == 1
        await worker.shutdown("hard")


async def test_channel_that_is_away(rig, endless, autojump_clock):
    """G11: a worker that cannot listen runs tasks all the same, tries again, and heeds messages then."""
    handle = await rig.enqueue(endless)
    rig.faults.fail("broker.subscribe", times=4)
    rig.faults.fail("broker.receive", times=2)
    async with rig.worker(endless):
        await trio.testing.wait_all_tasks_blocked()
        assert (await rig.status(handle)).state is TaskState.RUNNING
        await trio.sleep(20)
        assert rig.faults.trace.count("broker.subscribe:before") == 7
        await handle.revoke()
        assert (await handle.wait(timeout=1)).state is TaskState.REVOKED


async def test_missed_message_is_not_lost(rig, endless, autojump_clock):
    """G8: a worker that missed a message learns of it from the broker, when it renews the lease."""
    handle = await rig.enqueue(endless, visibility_timeout=30)
    other = await rig.enqueue(endless, visibility_timeout=30)
    rig.faults.fail("broker.subscribe")
    async with rig.worker(endless) as worker:
        await trio.testing.wait_all_tasks_blocked()
        await handle.revoke(reason="missed")
        await trio.sleep(9)
        assert (await rig.status(handle)).state is TaskState.RUNNING
        assert (await handle.wait(timeout=2)).reason == "missed"
        await trio.sleep(100)
        assert (await rig.status(other)).state is TaskState.RUNNING
        await worker.shutdown("hard")


async def test_missed_message_that_cannot_be_looked_up(rig, endless, autojump_clock):
    """G11: a broker that does not tell of revocations costs no lease; it is asked again at the next renewal."""
    handle = await rig.enqueue(endless, visibility_timeout=30)
    rig.faults.fail("broker.subscribe")
    rig.faults.fail("broker.revocations", times=2)
    async with rig.worker(endless) as worker:
        await trio.testing.wait_all_tasks_blocked()
        await handle.revoke(reason="missed")
        await trio.sleep(25)
        assert (await rig.status(handle)).state is TaskState.RUNNING
        assert (await handle.wait(timeout=6)).reason == "missed"
        assert worker.totals["lease_lost"] == 0


async def test_missed_message_that_finds_nothing_to_end(rig, endless, autojump_clock):
    """G8: a task that has ended, or lost its lease, while its revocation was looked up is left alone."""
    handle = await rig.enqueue(endless, visibility_timeout=30)
    rig.faults.fail("broker.subscribe")
    async with rig.worker(endless) as worker:
        await trio.testing.wait_all_tasks_blocked()
        await handle.revoke(reason="missed")
        [held] = worker._holdings
        rig.faults.at("broker.revocations:after", lambda: held.cancel(Cause.LEASE_LOST), times=1)
        await trio.sleep(12)
        assert worker.totals["lease_lost"] == 1
        assert worker.totals["revoked"] == 0


# --- heartbeat ----------------------------------------------------------------------------------------------------


async def test_heartbeat(rig, endless, autojump_clock):
    """A worker writes who and where it is, what it does, and how its runs have ended, now and at each interval."""

    @task(name="quick")
    async def quick() -> None: ...

    rig.listen("worker_heartbeat")
    await rig.enqueue_many(endless, 4)
    began = rig.clock.now()
    async with rig.worker(endless, quick, queues=["default", "other"], concurrency=3, prefetch=1) as worker:
        await trio.sleep(0.5)
        await rig.stem.submit(quick.with_options(queue="other").bind())
        await trio.sleep(20)
        [beat] = await rig.backend.list_heartbeats()
        assert (beat.worker, beat.host, beat.pid) == (worker.id, socket.gethostname(), os.getpid())
        assert (beat.state, beat.queues, beat.concurrency) == ("running", ("default", "other"), 3)
        assert (beat.in_flight, beat.running) == (4, 3)
        assert (beat.started_at, beat.sent_at) == (pytest.approx(began), pytest.approx(began + 20))
        assert rig.heard == ["worker_heartbeat"] * 3
        assert rig.events[-1][1].heartbeat == beat
        assert rig.events[-1][1].worker == worker.id
        await worker.shutdown("hard")
    assert await rig.backend.list_heartbeats() == []


async def test_heartbeat_lasts_for_six_beats(rig, autojump_clock):
    """A dead worker is forgotten after six beats, a slow store makes nobody take a living one for dead."""
    rig.faults.hang("backend.put_heartbeat", skip=1)
    async with rig.worker(heartbeat_interval=10):
        await trio.sleep(59)
        assert len(await rig.backend.list_heartbeats()) == 1
        await trio.sleep(2)
        assert await rig.backend.list_heartbeats() == []


async def test_heartbeat_while_the_backend_is_away(rig, autojump_clock, caplog):
    """G11: beats that cannot be written are logged and made up for by the next; so is the one that ends them."""
    rig.faults.fail("backend.put_heartbeat", skip=1, times=3)
    async with rig.worker(heartbeat_interval=10) as worker:
        await trio.sleep(35)
        assert caplog.text.count("cannot write the heartbeat") == 3
        await trio.sleep(10)
        [beat] = await rig.backend.list_heartbeats()
        assert beat.sent_at == pytest.approx(rig.clock.now() - 5)
        assert beat.worker == worker.id
        rig.faults.fail("backend.remove_heartbeat")
    assert "cannot withdraw the heartbeat" in caplog.text


# --- running statuses ---------------------------------------------------------------------------------------------


async def test_handlers_that_end_at_once_have_no_running_status(rig, autojump_clock, monkeypatch):
    """What ends within a step or two costs no second write."""
    written = []
    record = InMemoryResultBackend.record

    async def spy(self, statuses):
        written.extend(status.state for status in statuses)
        return await record(self, statuses)

    monkeypatch.setattr(InMemoryResultBackend, "record", spy)

    @task(name="instant")
    async def instant(steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()

    handles = [await rig.enqueue(instant, steps) for steps in [0, 1] * 20]
    written.clear()
    async with rig.worker(instant, concurrency=1, prefetch=0):
        for handle in handles:
            await handle.result(timeout=1)
    assert written == [TaskState.SUCCEEDED] * 40


async def test_running_statuses_are_written_together(rig, endless, autojump_clock):
    """Runs that start together share one write."""
    ids = await rig.enqueue_many(endless, 50)
    async with rig.worker(endless, concurrency=50) as worker:
        await trio.testing.wait_all_tasks_blocked()
        for task_id in ids:
            assert (await rig.status(task_id)).state is TaskState.RUNNING
        assert rig.faults.trace.count("backend.record:before") <= 2
        await worker.shutdown("hard")


async def test_running_status_while_the_backend_is_away(rig, autojump_clock):
    """G11: the newest state of each run is kept and written when the backend is back; of ended runs nothing is."""

    @task(name="reporting")
    async def reporting(context: TaskContext, seconds: float) -> None:
        for second in range(int(seconds)):
            await context.progress(second)
            await trio.sleep(1)

    rig.faults.fail("backend.record")
    short = await rig.enqueue(reporting, 5)
    long = await rig.enqueue(reporting, 60)
    async with rig.worker(reporting):
        await trio.sleep(20.5)
        assert (await rig.status(long)).state is TaskState.QUEUED
        rig.faults.clear()
        await trio.sleep(5.6)
        status = await rig.status(long)
        assert status.state is TaskState.RUNNING
        assert status.progress.percent >= 20
        assert (await rig.status(short)).state is TaskState.SUCCEEDED
        await long.result(timeout=60)


async def test_running_status_is_made_up_for(rig, endless, autojump_clock):
    """G11: a run that began while the backend was away, and reports nothing, is shown as running once it is back."""
    rig.faults.fail("backend.record", times=5)
    handle = await rig.enqueue(endless)
    async with rig.worker(endless) as worker:
        await trio.testing.wait_all_tasks_blocked()
        assert (await rig.status(handle)).state is TaskState.QUEUED
        await trio.sleep(10)
        assert (await rig.status(handle)).state is TaskState.RUNNING
        await worker.shutdown("hard")


async def test_progress_does_not_wait_for_the_backend(rig, autojump_clock):
    """A handler that reports is not held up by a backend that hangs; what it overtakes is not written."""
    times = []

    @task(name="reporting")
    async def reporting(context: TaskContext) -> None:
        await trio.sleep(1)
        for percent in range(100):
            await context.progress(percent)
        times.append(trio.current_time())
        await trio.sleep(100)

    rig.faults.hang("backend.record", skip=1, times=1)
    await rig.enqueue(reporting)
    async with rig.worker(reporting) as worker:
        began = trio.current_time()
        await trio.sleep(50)
        assert times == [began + 1]
        assert rig.faults.trace.count("backend.record:after") == 2
        await worker.shutdown("hard")


# --- small parts --------------------------------------------------------------------------------------------------


def test_backoff():
    """Waits double from 50 ms to five seconds, each cut by up to a half at random, and start anew after a success."""
    backoff = Backoff()
    for _ in range(2):
        for number in range(12):
            full = min(0.05 * 2**number, 5.0)
            assert full / 2 <= backoff.next() <= full
        backoff.reset()


async def test_holdings(rig, endless, autojump_clock):
    """A delivery is held until it is removed, whichever way; one that comes back replaces the one before."""
    holdings = Holdings()
    await rig.enqueue_many(endless, 2)
    first, second = await rig.broker.claim(["default"], consumer="a", limit=2, wait=0)
    one = holdings.add(first)
    two = holdings.add(second)
    assert len(holdings) == 2
    assert holdings.get(two.id) is two
    again = holdings.add(first)
    assert one.cause is Cause.LEASE_LOST
    assert one.scope.cancel_called
    holdings.remove(one)
    assert holdings.get(again.id) is again
    holdings.limit(trio.current_time() + 1000)
    assert again.scope.deadline == two.scope.deadline == trio.current_time() + 30
    holdings.limit(trio.current_time() + 7)
    assert again.scope.deadline == two.scope.deadline == trio.current_time() + 7
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(holdings.wait_removed)
            await trio.testing.wait_all_tasks_blocked()
            holdings.remove(again)
            holdings.remove(again)
            holdings.remove(two)
    assert list(holdings) == []
    assert holdings.add(second).scope.deadline == trio.current_time() + 7


async def test_first_cause_counts(rig, endless, autojump_clock):
    """A run that is cancelled for one cause is not cancelled for another."""
    holdings = Holdings()
    await rig.enqueue(endless)
    [delivery] = await rig.broker.claim(["default"], consumer="a", limit=1, wait=0)
    held = holdings.add(delivery)
    held.cancel(Cause.REVOKED)
    held.cancel(Cause.LEASE_LOST)
    assert held.cause is Cause.REVOKED
    assert held.cancelled is held.cancelled
    assert held.soft_limit_reached is held.soft_limit_reached
