"""The thread of a file: how jobs are gathered, fail, are withdrawn, and how it all ends."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from stem_trio.errors import ConfigurationError, StoreClosedError, StoreError
from stem_trio.outcome import Complete
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend, moves
from stem_trio.testing.contracts import make_envelope, make_status

from .conftest import PATIENCE, as_elsewhere


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("stem-sqlite")]


@pytest.fixture
async def broker(file):
    async with SqliteBroker.open(file, synchronous="OFF") as broker:
        yield broker


class Gate:
    """Holds the thread in a job until it is opened."""

    def __init__(self):
        self._entered = threading.Event()
        self._leave = threading.Event()

    def __call__(self, work):
        self._entered.set()
        assert self._leave.wait(PATIENCE)

    async def entered(self):
        assert await trio.to_thread.run_sync(self._entered.wait, PATIENCE)

    def open(self):
        self._leave.set()


# --- gathering ----------------------------------------------------------------------------------------------------


async def test_what_waits_is_committed_together(broker):
    """A hundred calls at the same time are one commit."""
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker._engine.call, gate)
        await gate.entered()
        for _ in range(100):
            nursery.start_soon(broker.publish, [make_envelope(queue="q")])
        await trio.testing.wait_all_tasks_blocked()
        before = broker._engine.commits
        gate.open()
    assert broker._engine.commits - before == 2  # that of the gate, and one for all others
    assert (await broker.stats("q")).ready == 100


async def test_a_failing_job_leaves_the_others(broker):
    """G2: of calls that are committed together one may fail, whole, and the others are done."""
    gate = Gate()
    errors = []

    def fail(work):
        work.run("DELETE FROM tasks")
        work.change.queues.add("q")
        raise ZeroDivisionError("on purpose")

    async def failing():
        with pytest.raises(ZeroDivisionError) as caught:
            await broker._engine.call(fail)
        errors.append(caught.value)

    async def wrong():
        with pytest.raises(StoreError, match="no such table") as caught:
            await broker._engine.call(lambda work: work.run("DELETE FROM unknown"))
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker._engine.call, gate)
        await gate.entered()
        for call in (partial(broker.publish, [make_envelope(queue="q")]), failing, wrong):
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(broker.publish, [make_envelope(queue="q")])
        await trio.testing.wait_all_tasks_blocked()
        before = broker._engine.commits
        gate.open()
    assert broker._engine.commits - before == 2
    assert len(errors) == 2
    assert (await broker.stats("q")).ready == 2


async def test_what_a_failing_job_moved_by_the_way(broker):
    """G1: a task that got due, and whose move was undone with a job that failed, is moved for the next one."""
    await broker.publish([make_envelope(queue="q")], delay=0.001)
    gate = Gate()
    stats = []

    def fail(work):
        moves.advance(work, "q", broker._keep)
        raise ZeroDivisionError("on purpose")

    async def failing():
        with pytest.raises(ZeroDivisionError):
            await broker._engine.call(fail)

    async def look():
        stats.append(await broker.stats("q"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker._engine.call, gate)
        await gate.entered()
        for call in (failing, look):
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked(0.01)
        gate.open()
    assert (stats[0].ready, stats[0].delayed) == (1, 0)


async def test_a_job_that_fails_alone(broker):
    await broker.publish([make_envelope(queue="q")])
    with pytest.raises(StoreError, match="no such table"):
        await broker._engine.call(lambda work: (work.run("DELETE FROM tasks"), work.run("DELETE FROM unknown")))
    assert (await broker.stats("q")).ready == 1


async def test_a_job_that_ends_the_transaction(broker):
    """G2: where SQLite gives up the whole transaction for the sake of one job, the others are done all the same."""
    gate = Gate()

    def fail(work):
        work.execute("ROLLBACK")
        work.run("DELETE FROM unknown")

    async def failing():
        with pytest.raises(StoreError, match="no such table"):
            await broker._engine.call(fail)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker._engine.call, gate)
        await gate.entered()
        for call in (partial(broker.publish, [make_envelope(queue="q")]), failing):
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
        gate.open()
    assert (await broker.stats("q")).ready == 1


# --- cancellation -------------------------------------------------------------------------------------------------


async def test_a_withdrawn_job_is_not_done(broker):
    """G2: a call that is cancelled before its job has begun does nothing."""
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker._engine.call, gate)
        await gate.entered()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(broker.publish, [make_envelope(queue="q")])
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        gate.open()
    assert (await broker.stats("q")).ready == 0


async def test_claim_cancelled_after_it_was_carried_out(broker):
    """G1: what was taken for a claim that is cancelled before it is told comes back at once, and costs nothing."""
    envelope = make_envelope(queue="q", visibility_timeout=3600.0)
    await broker.publish([envelope])
    gate = Gate()
    before = broker._engine.commits
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker._engine.call, gate)
        await gate.entered()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(partial(broker.claim, ["q"], consumer="w", limit=1, wait=0))
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
                # Blocks the trio thread, so that the answer is there and not told.
                deadline = trio.current_time() + PATIENCE
                while broker._engine.commits < before + 2 and trio.current_time() < deadline:
                    pass
                scope.cancel()
        assert scope.cancelled_caught
    with trio.fail_after(PATIENCE):
        (delivery,) = await broker.claim(["q"], consumer="w", limit=1, wait=3600)
    assert (delivery.envelope, delivery.strikes, delivery.deliveries) == (envelope, 0, 2)


async def test_cancelled_at_every_moment(broker):
    """G1: whenever a claim is cancelled, its task is with it or in the queue again."""
    for step in range(40):
        envelope = make_envelope(queue="q", visibility_timeout=3600.0)
        await broker.publish([envelope])
        returned = []
        with trio.move_on_after(step * 0.0001):
            returned = await broker.claim(["q"], consumer="w", limit=1, wait=0)
        if not returned:
            with trio.fail_after(PATIENCE):
                returned = await broker.claim(["q"], consumer="w", limit=1, wait=3600)
        (delivery,) = returned
        assert delivery.envelope == envelope
        assert delivery.strikes == 0
        assert await broker.settle([(delivery.lease, Complete())]) == [True]
    assert (await broker.stats("q")).unfinished == 0


async def test_two_receive_at_the_same_time(broker):
    """What two read at the same time is received once."""
    received = []
    async with broker.subscribe("c") as subscription:
        gate = Gate()
        await broker.broadcast("c", b"1")
        await broker.broadcast("c", b"2")

        async def receive():
            received.append(await subscription.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker._engine.call, gate)
            await gate.entered()
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            subscription.changed()  # as by a third message, from elsewhere
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert sorted(received) == [b"1", b"2"]
        with trio.move_on_after(0.05) as scope:
            await subscription.receive()
        assert scope.cancelled_caught


async def test_cancelled_while_reading(file):
    """G12: a message or a status that was being read for a call that is cancelled is there for the next one."""
    async with SqliteBroker.open(file) as broker, SqliteResultBackend.open(file) as backend:
        other = as_elsewhere(SqliteResultBackend.open(file))
        async with broker.subscribe("c") as subscription, backend.watch("x") as watch, other:
            for number in range(1, 4):
                await broker.broadcast("c", str(number).encode())
                await other.record([make_status("x", deliveries=number)])
                watch.look_again()
                gate = Gate()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(broker._engine.call, gate)
                    await gate.entered()
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as inner:
                            inner.start_soon(subscription.receive)
                            inner.start_soon(watch.changed)
                            await trio.testing.wait_all_tasks_blocked()
                            scope.cancel()
                    gate.open()
                with trio.fail_after(PATIENCE):
                    assert await subscription.receive() == str(number).encode()
                    assert (await watch.changed()).deliveries == number


# --- opening and closing ------------------------------------------------------------------------------------------


async def test_stores_on_one_file_share_a_thread(file):
    async with SqliteBroker.open(file) as broker:
        async with SqliteResultBackend.open(f"sqlite:///{file}") as backend:
            assert backend._engine is broker._engine
            assert len(threads()) == 1
        assert len(threads()) == 1
        await broker.stats("q")
    assert threads() == []


async def test_stores_on_one_file_have_the_same_options(file):
    """G15: an option that could have no effect is refused."""
    async with SqliteBroker.open(file, synchronous="FULL") as broker:
        with pytest.raises(ConfigurationError, match="in use with synchronous='FULL'"):
            async with SqliteResultBackend.open(file, synchronous="NORMAL"):
                pass  # pragma: no cover - not reached
        await broker.stats("q")
    assert threads() == []


async def test_open_again_and_again(file):
    async with SqliteBroker.open(file) as broker:
        await broker.publish([make_envelope(queue="q")])
        with pytest.raises(StoreError, match="open already"):
            await broker.__aenter__()
    with pytest.raises(StoreClosedError):
        await broker.stats("q")
    async with broker:
        assert (await broker.stats("q")).ready == 1


def descriptors():
    """The open files of this process, where the system tells."""
    folder = Path("/proc/self/fd")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


async def test_nothing_is_left_behind(file):
    """G10: with the last store on it closed, thread, pipes and files of the connection are gone."""
    before = descriptors()
    async with SqliteBroker.open(file) as broker, SqliteResultBackend.open(file) as backend:
        with trio.move_on_after(0.05):
            await broker.claim(["q"], consumer="w", limit=1, wait=3600)
        async with backend.watch("x"):
            assert len(list(file.parent.iterdir())) == 4  # the file, its log and index, a doorbell
    assert list(file.parent.iterdir()) == [file]
    assert threads() == []
    assert descriptors() <= before


async def test_whoever_waits_is_told_of_the_end(file):
    """G12: closing a store ends what waits in it with an error of its own, another store on the file goes on."""
    told = []

    async def expect_end(call):
        with pytest.raises(StoreClosedError):
            await call()
        told.append(call)

    async with SqliteResultBackend.open(file) as other, trio.open_nursery() as nursery:
        broker, backend = SqliteBroker.open(file), SqliteResultBackend.open(file)
        async with broker, backend, broker.subscribe("c") as subscription, backend.watch("x") as watch:
            claim = partial(broker.claim, ["q"], consumer="w", limit=1, wait=3600)
            for call in (claim, subscription.receive, watch.changed):
                nursery.start_soon(expect_end, call)
            await trio.testing.wait_all_tasks_blocked()
            await broker.__aexit__(None, None, None)
            await backend.__aexit__(None, None, None)
            with trio.fail_after(PATIENCE):
                while len(told) < 3:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            await broker.__aenter__()
            await backend.__aenter__()
        assert await other.record([make_status("x")]) == [True]


async def test_closing_while_the_thread_is_busy(file):
    """G10: closing lets a job end that is under way, and is not held up by a cancellation."""
    gate = Gate()
    broker = await SqliteBroker.open(file).__aenter__()
    async with trio.open_nursery() as nursery:

        async def call():
            await broker._engine_in_use.call(gate)

        nursery.start_soon(call)
        await gate.entered()
        threading.Timer(0.1, gate.open).start()
        with trio.CancelScope() as scope:
            scope.cancel()
            await broker.__aexit__(None, None, None)
    assert threads() == []


async def test_a_statement_that_does_not_end_is_broken_off(file, monkeypatch):
    """G10: closing takes a bounded time, whatever the thread is at."""
    monkeypatch.setattr("stem_trio.stores.sqlite.engine._GRACE", 0.1)
    broker = await SqliteBroker.open(file).__aenter__()
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    async with trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(StoreError, match="closed"):
                await broker._engine_in_use.call(lambda work: work.value(endless))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(PATIENCE):
            await broker.__aexit__(None, None, None)
    assert threads() == []


async def test_cancelled_while_opening(file):
    with trio.CancelScope() as scope:
        scope.cancel()
        async with SqliteBroker.open(file):
            pass
    assert threads() == []
    async with SqliteBroker.open(file) as broker:
        await broker.stats("q")


async def test_a_forked_process_is_refused(broker, monkeypatch):
    """A connection must not be used by two processes: what is carried over a fork is refused."""
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    with pytest.raises(StoreError, match="forked"):
        await broker.stats("q")


async def test_a_thread_that_breaks_down(file, monkeypatch):
    """G12: an error that nobody has thought of ends all calls, and does not leave them waiting."""
    async with SqliteBroker.open(file) as broker:
        engine = broker._engine

        def break_down(jobs):
            raise ZeroDivisionError("on purpose")

        monkeypatch.setattr(engine._transactor, "carry_out", break_down)
        with trio.fail_after(PATIENCE):
            for _ in range(2):
                with pytest.raises(StoreError, match="has failed, close it"):
                    await broker.stats("q")
    assert threads() == []


async def test_two_connections_do_not_starve_each_other(file):
    """G9: of two connections that are both busy all the time each has its turns."""
    counts = [0, 0]
    first, second = SqliteBroker.open(file, synchronous="OFF"), SqliteBroker.open(file, synchronous="OFF")
    async with first, as_elsewhere(second):

        async def publish(number, broker):
            while min(counts) < 20:
                await broker.publish([make_envelope(queue=f"q{number}")])
                counts[number] += 1

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number, broker in enumerate((first, second)):
                    for _ in range(5):
                        nursery.start_soon(publish, number, broker)
