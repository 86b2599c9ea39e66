"""Several processes on one file."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
import trio
import trio.testing

from stem_trio.errors import StoreUnavailableError
from stem_trio.outcome import Complete
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend
from stem_trio.testing.contracts import make_envelope

from .conftest import PATIENCE, as_elsewhere


def pipes(file):
    return sorted(path.name for path in file.parent.iterdir() if "-bell-" in path.name)


async def test_three_processes_share_the_work(file, run_program):
    """G3: of sixty tasks each is done by exactly one of three processes, however they compete."""
    async with SqliteBroker.open(file) as broker, SqliteResultBackend.open(file) as backend:
        envelopes = [make_envelope(queue="q") for _ in range(60)]
        await broker.publish([make_envelope(queue="gate", id="gate")])
        done: list[list[str]] = []

        async with (
            run_program("work") as first,
            run_program("work") as second,
            run_program("work") as third,
        ):
            workers = [first, second, third]
            for worker in workers:
                assert await worker.line() == "ready"

            async def collect(worker):
                done.append(await worker.rest())

            async with trio.open_nursery() as nursery:
                for worker in workers:
                    nursery.start_soon(collect, worker)
                for envelope in envelopes:
                    assert await broker.publish([envelope]) == [True]
                await broker.purge("gate")
            for worker in workers:
                assert await worker.process.wait() == 0
        counts = Counter(task_id for lines in done for task_id in lines)
        assert counts == Counter(envelope.id for envelope in envelopes)
        assert (await broker.stats("q")).unfinished == 0
        for envelope in envelopes[::10]:
            status = await backend.get(envelope.id)
            assert status is not None
            assert status.reason == "1"


@pytest.fixture
def never_look(monkeypatch):
    """Nobody looks at the file by himself: who is woken heard a bell."""
    monkeypatch.setattr("stem_trio.stores.sqlite.engine._LOOK", 3600.0)


async def test_a_claim_is_woken_by_another_process(file, run_program, never_look):
    """G12: a claim that waits is given what another process publishes."""
    async with SqliteBroker.open(file) as broker, run_program("publish", 5) as producer:
        assert await producer.line() == "ready"
        for _ in range(5):
            async with trio.open_nursery() as nursery:

                async def claim():
                    with trio.fail_after(PATIENCE):
                        (delivery,) = await broker.claim(["q"], consumer="w", limit=1, wait=3600)
                    assert await broker.settle([(delivery.lease, Complete())]) == [True]

                nursery.start_soon(claim)
                await producer.go()
                assert await producer.line() == "published"


async def test_a_lost_ring(file, run_program, monkeypatch):
    """G12: a claim that is not rung for, because somebody has removed its pipe, looks at the file now and then."""
    async with SqliteBroker.open(file) as broker, run_program("publish", 1) as producer:
        assert await producer.line() == "ready"
        async with trio.open_nursery() as nursery:

            async def claim():
                with trio.fail_after(PATIENCE):
                    assert len(await broker.claim(["q"], consumer="w", limit=1, wait=3600)) == 1

            nursery.start_soon(claim)
            with trio.fail_after(PATIENCE):
                while not pipes(file):
                    await trio.testing.wait_all_tasks_blocked(0.01)
            (file.parent / pipes(file)[0]).unlink()
            await producer.go()


async def test_without_named_pipes(file, run_program, monkeypatch):
    """G12: where there can be no named pipes, the file is looked at often enough."""

    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "mkfifo", refuse)
    async with SqliteBroker.open(file) as broker, run_program("publish", 2) as producer:
        assert await producer.line() == "ready"
        async with trio.open_nursery() as nursery:

            async def claim():
                with trio.fail_after(PATIENCE):
                    for _ in range(2):
                        assert len(await broker.claim(["q"], consumer="w", limit=1, wait=3600)) == 1

            nursery.start_soon(claim)
            for _ in range(2):
                await producer.go()
                assert await producer.line() == "published"
        assert pipes(file) == []


async def test_watches_and_subscriptions_hear_other_processes(file, run_program, never_look):
    """G12: what another process records or broadcasts is seen by whoever watches or has subscribed."""
    async with (
        SqliteBroker.open(file) as broker,
        SqliteResultBackend.open(file) as backend,
        run_program("record", "the-task") as other,
    ):
        assert await other.line() == "ready"
        async with backend.watch("the-task") as watch, broker.subscribe("c") as subscription:
            for number in range(1, 4):
                await other.go()
                with trio.fail_after(PATIENCE):
                    assert (await watch.changed()).deliveries == number
                    assert await subscription.receive() == str(number).encode()


async def test_killed_worker_loses_nothing(file, run_program):
    """G1: what a killed process held is handed out again when its lease ends, and its doorbell is cleared away."""
    async with SqliteBroker.open(file) as broker:
        envelope = make_envelope(queue="q", visibility_timeout=1.0)
        await broker.publish([envelope])
        async with run_program("claim_and_hang") as worker:
            assert await worker.line() == envelope.id
            assert await worker.line() == "waiting"
            assert len(pipes(file)) == 1
            await worker.kill()
        with trio.fail_after(PATIENCE):
            (delivery,) = await broker.claim(["q"], consumer="w", limit=1, wait=3600)
            assert (delivery.envelope, delivery.strikes) == (envelope, 1)
            while len(pipes(file)) > 1:  # its own stays
                await broker.publish([make_envelope(queue="q")])
    assert pipes(file) == []


@pytest.mark.parametrize("cut", [0, 1000])
async def test_killed_producer(file, run_program, cut):
    """G1: what was confirmed before a process was killed is there, with its log whole or cut short at the end."""
    async with run_program("enqueue_for_ever") as producer:
        confirmed = {await producer.line() for _ in range(50)}
        producer.process.send_signal(signal.SIGKILL)
        await producer.process.wait()
        confirmed |= {line for line in await producer.rest() if len(line) == 36}
    log = file.with_name(file.name + "-wal")
    frames_lost = 0
    if cut:
        # As if the last writes had not reached the disk: allowed under NORMAL, and the rest must be whole.
        os.truncate(log, log.stat().st_size - cut)
        frames_lost = 1
    async with SqliteBroker.open(file) as broker:
        stats = await broker.stats("q")
        found = {waiting.envelope.id for waiting in await broker.peek("q", limit=100_000)}
        assert stats.ready == len(found)
        assert len(confirmed - found) <= frames_lost
        assert len(found - confirmed) <= 1  # one may have been published and not said


async def test_locked_by_another_program(file, run_program):
    """G11: a foreign lock is waited for, busy_timeout at most; then the error says that nothing was done."""
    async with SqliteBroker.open(file, busy_timeout=0.2) as broker, run_program("lock") as locker:
        assert await locker.line() == "locked"
        envelope = make_envelope(queue="q")
        with pytest.raises(StoreUnavailableError, match="locked by another program") as caught:
            await broker.publish([envelope])
        assert not caught.value.maybe_applied
        with trio.move_on_after(0.05) as scope:
            await broker.publish([envelope])
        assert scope.cancelled_caught
        with pytest.raises(StoreUnavailableError):
            async with as_elsewhere(SqliteBroker.open(file, busy_timeout=0.1)):
                pass  # pragma: no cover - not reached
        await locker.go()
        assert await locker.line() == "unlocked"
        assert (await broker.stats("q")).ready == 0
        assert await broker.publish([envelope]) == [True]


async def test_a_lock_that_ends_in_time(file, run_program):
    """G11: whoever waits for a foreign lock goes on when it ends."""
    async with SqliteBroker.open(file, busy_timeout=PATIENCE) as broker, run_program("lock") as locker:
        assert await locker.line() == "locked"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.publish, [make_envelope(queue="q")])
            await trio.sleep(0.05)  # it is waiting by now; nothing depends on it
            await locker.go()
        assert (await broker.stats("q")).ready == 1
