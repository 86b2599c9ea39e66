"""What is kept and for how long, and by which clock."""

from __future__ import annotations

import time
from functools import partial

import pytest
import trio
import trio.testing

from stem_trio.clock import TrioClock
from stem_trio.envelope import QueueStats
from stem_trio.errors import InvalidOptionError, StoreError
from stem_trio.outcome import Complete, MoveToDead
from stem_trio.status import TaskState
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend, clock
from stem_trio.testing.contracts import make_envelope, make_heartbeat, make_status

from .conftest import PATIENCE

OPTIONS = {"synchronous": "OFF"}


def count(store, table):
    return store._engine.call(lambda work: work.value(f"SELECT count(*) FROM {table}"), writes=False)


async def bury(broker, number):
    envelopes = [make_envelope(queue="q") for _ in range(number)]
    await broker.publish(envelopes)
    deliveries = []
    while len(deliveries) < number:
        deliveries += await broker.claim(["q"], consumer="w", limit=number, wait=0)
    await broker.settle([(delivery.lease, MoveToDead("r", "\0 detail \0")) for delivery in deliveries])
    return envelopes


# --- retention ----------------------------------------------------------------------------------------------------


async def test_dead_letters_are_bounded(file):
    """G14: of the dead letters of a queue the newest are kept, so many and so long."""
    async with SqliteBroker.open(file, max_dead_letters=3, **OPTIONS) as broker:
        envelopes = [*await bury(broker, 2), *await bury(broker, 5), *await bury(broker, 1)]
        letters = await broker.list_dead_letters("q")
        assert [letter.envelope for letter in letters] == envelopes[:-4:-1]
        assert letters[0].detail == "\0 detail \0"


async def test_dead_letters_of_a_large_bound(file):
    """G14: where many are kept, they are counted now and then, and the bound is exceeded by a tenth at most."""
    async with SqliteBroker.open(file, max_dead_letters=20, **OPTIONS) as broker:
        most = 0
        for _ in range(40):
            await bury(broker, 1)
            most = max(most, (await broker.stats("q")).dead)
        assert 20 <= most <= 22


async def test_dead_letters_go(file, autojump_clock):
    """G14: a dead letter is gone when its retention has ended, and its id is free."""
    options = {**OPTIONS, "clock": TrioClock()}
    async with SqliteBroker.open(file, dead_letter_retention=100.0, **options) as broker:
        (envelope,) = await bury(broker, 1)
        await trio.sleep(99)
        assert (await broker.stats("q")).dead == 1
        await trio.sleep(2)
        assert await broker.get_dead_letter("q", envelope.id) is None
        assert await broker.publish([envelope]) == [True]


async def test_statuses_and_heartbeats_go(file, autojump_clock):
    """G14: what has expired is deleted with later writes, in batches, and not only hidden."""
    async with SqliteResultBackend.open(file, clock=TrioClock(), **OPTIONS) as backend:
        await backend.record([make_status(f"old-{number}", ttl=10.0) for number in range(1200)])
        await backend.record([make_status("kept", TaskState.SUCCEEDED, ttl=1000.0)])
        await backend.put_heartbeat(make_heartbeat("w"), ttl=10.0)
        await trio.sleep(11)
        assert await backend.get("old-1") is None
        left = []
        for number in range(4):
            await backend.record([make_status(f"new-{number}", ttl=1000.0)])
            left.append(await count(backend, "statuses") - number - 2)
        assert left == [700, 200, 0, 0]
        assert await count(backend, "heartbeats") == 0
        assert await backend.get("kept") is not None


async def test_broadcasts_go(file, autojump_clock, monkeypatch):
    """G14: broadcasts are kept for some time, and not more than so many."""
    monkeypatch.setattr("stem_trio.stores.sqlite.channel._KEPT", 50)
    async with SqliteBroker.open(file, clock=TrioClock(), **OPTIONS) as broker:
        async with broker.subscribe("c") as subscription:
            for number in range(100):
                await broker.broadcast("c", str(number).encode())
            assert await count(broker, "messages") == 50
            assert await subscription.receive() == b"50"  # the oldest were lost by lagging behind
        await trio.sleep(601)
        await broker.broadcast("c", b"")
        assert await count(broker, "messages") == 1


async def test_many_broadcasts_are_read_in_portions(file):
    async with SqliteBroker.open(file, **OPTIONS) as broker, broker.subscribe("c") as first:
        messages = [str(number).encode() for number in range(250)]
        async with trio.open_nursery() as nursery:
            for message in messages:
                nursery.start_soon(broker.broadcast, "c", message)
        received = []
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                async def receive():
                    received.append(await first.receive())

                for _ in range(250):
                    nursery.start_soon(receive)
        assert sorted(received) == sorted(messages)


async def test_space_is_given_back(file, autojump_clock):
    """G14: a file that was large for a while does not stay so."""
    async with SqliteBroker.open(file, clock=TrioClock(), **OPTIONS) as broker:
        for _ in range(5):
            await broker.publish([make_envelope(queue="q", headers={"x": "y" * 10_000}) for _ in range(300)])
        pages = await broker._engine.call(lambda work: work.value("PRAGMA page_count"))
        await broker.purge("q")
        for _ in range(40):
            await trio.sleep(31)
            await broker.publish([make_envelope(queue="q")])
        assert await broker._engine.call(lambda work: work.value("PRAGMA page_count")) < pages / 2


async def test_large_claims_come_in_portions(file):
    """G9: however much is claimed at once, what is held in memory for it is bounded."""
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        await broker.publish([make_envelope(queue="q") for _ in range(300)])
        assert len(await broker.claim(["q"], consumer="w", limit=300, wait=0)) == 100
        with pytest.raises(InvalidOptionError, match="limit"):
            await broker.claim(["q"], consumer="w", limit=0, wait=0)


async def test_publishing_in_portions(file, monkeypatch):
    """A batch of many bytes is written in several steps, in its order."""
    monkeypatch.setattr("stem_trio.stores.sqlite.broker._CHUNK_BYTES", 1000)
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        envelopes = [make_envelope(queue="q", headers={"x": "y" * 300}) for _ in range(20)]
        assert await broker.publish([*envelopes, envelopes[3]]) == [*[True] * 20, False]
        assert [waiting.envelope for waiting in await broker.peek("q")] == envelopes


async def test_null_characters(file):
    """Names with null characters, at which SQLite would end a text, are kept apart and come back whole."""
    names = ["a", "a\0", "a\0b", "a\x1b0b", "a\x1b"]
    async with SqliteBroker.open(file, **OPTIONS) as broker, SqliteResultBackend.open(file, **OPTIONS) as backend:
        for name in names:
            assert await broker.publish([make_envelope(queue=name, id=task_id) for task_id in names]) == [True] * 5
        assert await broker.revoke("a\0", ["a\0b"], reason="why\0") == [True]
        for name in names:
            deliveries = await broker.claim([name], consumer="w", limit=10, wait=0)
            assert [(delivery.lease.queue, delivery.envelope.id) for delivery in deliveries] == [
                (name, task_id) for task_id in names
            ]
            revoked = [delivery.revoked for delivery in deliveries]
            assert revoked == ([None, None, "why\0", None, None] if name == "a\0" else [None] * 5)
            assert await broker.renew([delivery.lease for delivery in deliveries]) == [True] * 5
            assert await broker.settle([(delivery.lease, Complete()) for delivery in deliveries]) == [True] * 5
        assert await backend.record([make_status(name, reason=name) for name in names]) == [True] * 5
        for name in names:
            status = await backend.get(name)
            assert status is not None
            assert status.reason == name


async def test_a_task_of_a_newer_version(file):
    """G1: a task that this version cannot read is handed out as such, and does not stand in the way of others."""
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        newer, other = make_envelope("newer", queue="q", id="\0", v=99), make_envelope(queue="q")
        await broker.publish([newer, other])
        assert [waiting.envelope.id for waiting in await broker.peek("q")] == [newer.id, other.id]
        first, second = await broker.claim(["q"], consumer="w", limit=2, wait=0)
        assert (first.envelope.id, first.envelope.queue, first.lease.task_id) == ("\0", "q", "\0")
        assert "wire version 99" in first.unreadable
        assert (second.envelope, second.unreadable) == (other, None)
        assert await broker.settle([(first.lease, MoveToDead("unreadable"))]) == [True]
        (letter,) = await broker.list_dead_letters("q")
        assert (letter.envelope.id, letter.reason) == ("\0", "unreadable")


async def test_not_a_settlement(file):
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        await broker.publish([make_envelope(queue="q")])
        (delivery,) = await broker.claim(["q"], consumer="w", limit=1, wait=0)
        with pytest.raises(TypeError, match="not a settlement"):
            await broker.settle([(delivery.lease, Complete)])


# --- the clock ----------------------------------------------------------------------------------------------------


class Machine:
    """The clocks of a machine that tests can stop, set and boot."""

    def __init__(self, monkeypatch):
        self.boot = "first"
        self.since_boot = 1000.0
        self.slept = 0.0
        self.wall = 1_700_000_000.0
        monkeypatch.setattr(clock, "_boot_id", lambda: self.boot)
        monkeypatch.setattr(clock, "_since_boot", lambda: round(self.since_boot * 1e6))
        monkeypatch.setattr(clock, "_awake", lambda: round((self.since_boot - self.slept) * 1e6))
        monkeypatch.setattr(time, "time_ns", lambda: round(self.wall * 1e9))

    def run(self, seconds):
        self.since_boot += seconds
        self.wall += seconds

    def sleep(self, seconds):
        self.run(seconds)
        self.slept += seconds

    def reboot(self, off, *, boot="second", wall=None):
        self.boot = boot
        self.since_boot = 20.0
        self.slept = 0.0
        self.wall = self.wall + off + 20.0 if wall is None else wall


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


async def prepare(file):
    """A task delayed for an hour, one leased for a minute."""
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        await broker.publish([make_envelope(queue="q", visibility_timeout=60.0)])
        assert len(await broker.claim(["q"], consumer="w", limit=1, wait=0)) == 1
        await broker.publish([make_envelope(queue="q")], delay=3600.0)


async def places(file):
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        return await broker.stats("q")


BOTH = QueueStats(ready=0, delayed=1, leased=1, dead=0)
DELAYED = QueueStats(ready=1, delayed=1, leased=0, dead=0)
NEITHER = QueueStats(ready=2, delayed=0, leased=0, dead=0)


async def test_time_passes(file, machine):
    await prepare(file)
    machine.run(59)
    assert await places(file) == BOTH
    machine.run(2)
    assert await places(file) == DELAYED
    machine.run(3600)
    assert await places(file) == NEITHER


@pytest.mark.parametrize("step", [-1e6, 1e6])
async def test_setting_the_time_of_day_changes_nothing(file, machine, step):
    """G13: delays and leases last as long as they should, though somebody sets the machine's clock."""
    await prepare(file)
    machine.wall += step
    assert await places(file) == BOTH
    machine.run(61)
    assert await places(file) == DELAYED
    machine.wall -= step / 2
    machine.run(3500)
    assert await places(file) == DELAYED
    machine.run(100)
    assert await places(file) == NEITHER


async def test_sleep_counts_for_delays_only(file, machine):
    """G4: a machine that sleeps does not take tasks from its workers; what is delayed is due by the time of day."""
    await prepare(file)
    machine.sleep(3700)
    assert await places(file) == QueueStats(ready=1, delayed=0, leased=1, dead=0)
    machine.run(61)
    assert await places(file) == NEITHER


@pytest.mark.parametrize("boot", ["second", "first"])
async def test_a_boot(file, machine, boot):
    """G13: after a boot time goes on as the time of day says, also where a boot can be told by the clock alone."""
    await prepare(file)
    machine.reboot(600, boot=boot)
    assert await places(file) == DELAYED
    machine.run(2900)
    assert await places(file) == DELAYED
    machine.run(200)
    assert await places(file) == NEITHER


async def test_a_boot_with_a_wrong_clock(file, machine):
    """G13: where the time of day was lost in a boot, time goes on, never back."""
    await prepare(file)
    machine.reboot(600, wall=0.0)
    assert await places(file) == BOTH
    machine.run(61)
    assert await places(file) == DELAYED
    machine.wall = 1_700_010_000.0  # and is set by and by
    assert await places(file) == DELAYED
    machine.run(3600)
    assert await places(file) == NEITHER


async def test_a_boot_and_sleep(file, machine):
    """G13: leases end after a boot, also when the machine has slept before the file is opened again."""
    await prepare(file)
    machine.reboot(0)
    machine.slept = 15.0
    assert await places(file) == BOTH
    machine.run(41)
    assert await places(file) == DELAYED


async def test_time_is_written_down(file, machine):
    """G13: time that has passed is not forgotten in a boot that loses the time of day, whatever was written last."""
    await prepare(file)
    machine.run(30)
    async with SqliteResultBackend.open(file, **OPTIONS) as backend:
        await backend.put_heartbeat(make_heartbeat("w"), ttl=1.0)
    machine.reboot(0, wall=0.0)
    assert await places(file) == BOTH
    machine.run(31)
    assert await places(file) == DELAYED


async def test_boots_do_not_add_up(file, machine):
    """G13: a wrong time of day that is put right between two boots is no time that has passed."""
    machine.wall = 1_000_000_000.0
    await prepare(file)
    machine.wall = 1_700_000_000.0
    machine.run(10)
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        await broker.publish([make_envelope(queue="other")])
    machine.reboot(5)
    assert await places(file) == BOTH


async def test_a_claim_looks_again_by_itself(file, autojump_clock):
    """G12: a claim that waits for a far moment looks again each minute, for the machine may have slept."""
    async with SqliteBroker.open(file, clock=TrioClock(), **OPTIONS) as broker:
        before = broker._engine.commits
        with trio.move_on_after(3600):
            await broker.claim(["q"], consumer="w", limit=1, wait=7200)
        assert 60 <= broker._engine.commits - before <= 65


# --- who is woken -------------------------------------------------------------------------------------------------


async def test_one_claim_is_woken_for_one_task(file):
    """G9: a task that comes does not make every waiting claim ask for it."""
    async with SqliteBroker.open(file, **OPTIONS) as broker, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(partial(broker.claim, ["q"], consumer="w", limit=1, wait=3600))
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = broker._engine.commits
        await broker.publish([make_envelope(queue="q")])
        await trio.testing.wait_all_tasks_blocked(0.05)
        # Publishing, the claim that took it, and the one that now watches over the lease.
        assert broker._engine.commits - before == 3
        nursery.cancel_scope.cancel()


async def test_errors_of_others_are_met_by_those_who_wait(file, monkeypatch):
    """G11: a claim that waits does not sleep through the loss of its file."""
    async with SqliteBroker.open(file, **OPTIONS) as broker:
        monkeypatch.setattr("stem_trio.stores.sqlite.transactor._CHECK_EVERY", 0.0)
        async with trio.open_nursery() as nursery:

            async def claim():
                with pytest.raises(StoreError, match="moved or deleted"), trio.fail_after(PATIENCE):
                    await broker.claim(["q"], consumer="w", limit=1, wait=3600)

            nursery.start_soon(claim)
            await trio.testing.wait_all_tasks_blocked(0.05)
            file.unlink()
