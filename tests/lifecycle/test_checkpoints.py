"""A worker that is ended at every one of its steps, and one whose stores fail at every one of theirs (G1, G10, G11).

A scenario with one task of each kind is run again and again, each time with one disturbance at another moment. Each
time a ledger is checked: nothing is lost, nothing is run by two at once, every task ends as it must, nothing is held.

A run is made repeatable by seeding the order in which trio runs tasks, and all jitter. A failure names the moment, and
the environment variable that plays just that one again.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
from trio.testing import MockClock

from stem_trio import (
    FixedRetryStrategy,
    InMemoryBroker,
    InMemoryResultBackend,
    Stem,
    StemSignals,
    StoreUnavailableError,
    TaskContext,
    Worker,
    task,
)
from stem_trio.clock import TrioClock
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker

REPLAY = "STEM_TEST_MOMENT"
"""``seed:moment``: play only that moment of each test that is run."""

LEASE = 3.0

pytestmark = pytest.mark.timeout(300)  # hundreds of runs: some ten seconds, and several times that under coverage


class FlakyError(Exception):
    """What handlers fail with."""


class Ledger:
    """What was accepted, and what became of it, written down by the handlers themselves."""

    def __init__(self) -> None:
        self.expected: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.overlaps: list[str] = []
        self.results: dict[str, str] = {}

    @contextmanager
    def run(self, context: TaskContext):
        """A run of a handler."""
        if self.running[context.id]:
            self.overlaps.append(context.id)
        self.running[context.id] += 1
        try:
            yield
            self.done[context.id] += 1
        except FlakyError:
            self.failed[context.id] += 1
            raise
        finally:
            self.running[context.id] -= 1


class Scenario:
    """Stores, tasks of every kind, and waiters; under a fake clock."""

    def __init__(self) -> None:
        self.ledger = ledger = Ledger()
        self.clock = TrioClock()
        self.broker = InMemoryBroker(clock=self.clock)
        self.backend = InMemoryResultBackend()
        self.stem = Stem(self.broker, self.backend, signals=StemSignals(), clock=self.clock)

        @task(name="quick", visibility_timeout=LEASE)
        async def quick(context: TaskContext) -> None:
            with ledger.run(context):
                pass

        @task(name="slow", visibility_timeout=LEASE)
        async def slow(context: TaskContext) -> str:
            with ledger.run(context):
                await trio.sleep(1)
                return "slow"

        @task(name="recovers", visibility_timeout=LEASE, max_retries=2)
        async def recovers(context: TaskContext) -> int:
            with ledger.run(context):
                if context.attempt < 2:
                    raise FlakyError
                return context.attempt

        @task(name="fails", visibility_timeout=LEASE, max_retries=1)
        async def fails(context: TaskContext) -> None:
            with ledger.run(context):
                await trio.sleep(0.5)
                raise FlakyError

        @task(name="long", visibility_timeout=LEASE, max_retries=3)
        async def long(context: TaskContext) -> None:
            with ledger.run(context):
                await trio.sleep(LEASE / 2)
                await context.progress(50)
                await context.extend_lease(2 * LEASE)
                await trio.sleep(LEASE)

        @task(name="parent", visibility_timeout=LEASE, max_retries=3)
        async def parent(context: TaskContext) -> str:
            with ledger.run(context):
                await trio.sleep(0.5)
                # A parent that is run again finds the child that it had.
                child = await slow.with_options(task_id=f"child of {context.id}").enqueue(context)
                return child.id

        self.tasks = [quick, slow, recovers, fails, long, parent]
        self.ends = dict.fromkeys((job.name for job in self.tasks), "succeeded") | {"fails": "failed"}

    async def enqueue(self) -> None:
        """One call of each kind, and a delayed one."""
        calls = [(job.name, {}) for job in self.tasks] + [("quick", {"delay": 3})]
        for name, options in calls:
            [job] = [job for job in self.tasks if job.name == name]
            handle = await job.with_options(**options).enqueue(self.stem)
            self.ledger.expected[handle.id] = self.ends[name]
            if name == "parent":
                self.ledger.expected[f"child of {handle.id}"] = "succeeded"

    @asynccontextmanager
    async def opened(self):
        """The stores open, tasks enqueued, and somebody waiting for each."""
        async with self.broker, self.backend, trio.open_nursery() as nursery:
            await self.enqueue()
            for task_id in self.ledger.expected:
                if not task_id.startswith("child"):
                    nursery.start_soon(self._wait, task_id)
            with trio.fail_after(1000):
                yield

    async def _wait(self, task_id: str) -> None:
        result = await self.stem.wait_for_task(task_id, 500)
        self.ledger.results[task_id] = result.state.value

    def worker(self, faults: Faults | None = None) -> Worker:
        """A worker, whose stores may fail."""
        broker = FaultyBroker(self.broker, faults) if faults is not None else self.broker
        backend = FaultyBackend(self.backend, faults) if faults is not None else self.backend
        return Worker(
            broker,
            backend,
            tasks=self.tasks,
            concurrency=3,
            prefetch=2,
            heartbeat_interval=2,
            signals=StemSignals(),
            clock=self.clock,
            retry_strategy=FixedRetryStrategy(1),
            store_timeout=5,
        )

    async def all_ended(self) -> None:
        """Wait until every task that was accepted, children included, is over and settled."""
        for task_id in self.ledger.expected:
            # A child need not exist yet, so nobody can wait for it.
            while (status := await self.backend.get(task_id)) is None or not status.state.terminal:  # noqa: ASYNC110
                await trio.sleep(0.5)
        while (await self.broker.stats("default")).unfinished:  # noqa: ASYNC110 - there is no event for that
            await trio.sleep(0.5)

    async def check_nothing_held(self) -> None:
        """What a worker leaves behind that has ended in good order."""
        assert not +self.ledger.running, "a handler runs on"
        assert (await self.broker.stats("default")).leased == 0, "a lease is held"
        assert await self.backend.list_heartbeats() == []

    async def check_end(self) -> None:
        """Everything has ended as it must."""
        ledger = self.ledger
        assert ledger.overlaps == [], "a task was run by two at once"
        states = {}
        for task_id in ledger.expected:
            status = await self.backend.get(task_id)
            states[task_id] = status.state.value
        assert states == ledger.expected
        stats = await self.broker.stats("default")
        assert (stats.unfinished, stats.dead) == (0, 1)
        [letter] = await self.broker.list_dead_letters("default")
        assert (letter.reason, letter.attempt) == ("max-retries-exhausted", 1)
        await self.check_nothing_held()

    def check_waiters(self) -> None:
        """G12: whoever waited has got the end that there was."""
        expected = {task_id: end for task_id, end in self.ledger.expected.items() if not task_id.startswith("child")}
        assert self.ledger.results == expected

    def check_exactly_once(self) -> None:
        """Nothing was done twice, and no attempt was spent on anything but a failure."""
        assert +self.ledger.done == Counter(task_id for task_id, end in self.ledger.expected.items() if end != "failed")
        assert sorted(self.ledger.failed.values()) == [2, 2]  # of `recovers` and `fails`


class Moment(trio.abc.Instrument):
    """Does something just before the n-th step that tasks within a certain task's nurseries take, itself included."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps = 0
        self.root: trio.lowlevel.Task | None = None
        self.action = lambda: None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.root is None:
            return
        within: trio.lowlevel.Task | None = task
        while within is not None and within is not self.root:
            within = within.parent_nursery.parent_task if within.parent_nursery is not None else None
        if within is None:
            return
        self.steps += 1
        if self.steps == self.number:
            self.action()


@pytest.fixture
def moments(monkeypatch, caplog):
    """Play `play(moment)` for moment 1, 2, 3 ... until it answers that there are no more; tell which one has failed."""
    caplog.set_level(logging.CRITICAL)  # thousands of warnings, as there should be, cost more than the tests themselves
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    replay = os.environ.get(REPLAY)
    seed = int(replay.split(":")[0]) if replay else random.randrange(10**6)

    def loop(play) -> int:
        moment = int(replay.split(":")[1]) if replay else 1
        while True:
            trio._core._run._r.seed(seed)
            random.seed(seed)
            try:
                more = play(moment)
            except BaseException as error:
                error.add_note(f"at moment {moment}; to play only that: {REPLAY}={seed}:{moment}")
                raise
            if not more or replay:
                return moment
            moment += 1

    return loop


def run(main, *args, instruments=()):
    return trio.run(main, *args, clock=MockClock(autojump_threshold=0), instruments=instruments)


async def finish(scenario: Scenario) -> None:
    """Let a fresh worker do the rest."""
    async with scenario.worker():
        await scenario.all_ended()


def test_undisturbed():
    """The scenario itself: everything happens once, and it has the length that the tests below count on."""

    async def main() -> None:
        scenario = Scenario()
        async with scenario.opened():
            await finish(scenario)
            await scenario.check_end()
        scenario.check_waiters()
        scenario.check_exactly_once()
        assert 4 < trio.current_time() < 6

    run(main)


def test_cancelled_at_every_step(moments):
    """G1, G7, G10: whenever a worker is cancelled, nothing is lost, nothing is held, nothing is done twice."""

    async def main(moment: Moment) -> None:
        scenario = Scenario()
        async with scenario.opened():
            moment.root = trio.lowlevel.current_task()
            with trio.CancelScope() as scope:
                moment.action = scope.cancel
                worker = scenario.worker()
                async with worker:
                    await scenario.all_ended()
            moment.root = None
            assert worker.in_flight == 0
            await scenario.check_nothing_held()
            for letter in await scenario.broker.list_dead_letters("default"):
                assert letter.strikes == 0
            await finish(scenario)
            await scenario.check_end()
        scenario.check_waiters()
        scenario.check_exactly_once()

    def play(number: int) -> bool:
        moment = Moment(number)
        run(main, moment, instruments=[moment])
        return moment.steps >= number

    assert moments(play) > 100


def test_cut_off_at_every_step(moments):
    """G1, G3: whenever a worker dies, its tasks come back when their leases end, and not before."""

    async def main(moment: Moment) -> None:
        scenario = Scenario()
        faults = Faults()
        async with scenario.opened():
            moment.root = trio.lowlevel.current_task()
            with trio.CancelScope() as scope:

                def die() -> None:
                    faults.down = True
                    scope.cancel()

                moment.action = die
                async with scenario.worker(faults):
                    await scenario.all_ended()
            died = moment.steps >= moment.number
            moment.root = None
            assert not +scenario.ledger.running
            async with scenario.worker() as other:
                await scenario.all_ended()
                assert other.totals["lease_lost"] == 0
            if died:
                await trio.sleep(12)  # nobody has withdrawn the heartbeat of the dead one
            await scenario.check_end()
            for task_id, end in scenario.ledger.expected.items():
                assert scenario.ledger.done[task_id] >= (end == "succeeded")
        scenario.check_waiters()

    def play(number: int) -> bool:
        moment = Moment(number)
        run(main, moment, instruments=[moment])
        return moment.steps >= number

    assert moments(play) > 100


OPERATIONS = [
    *(f"broker.{name}" for name in ("publish", "claim", "renew", "revocations", "settle", "subscribe", "receive")),
    *(f"backend.{name}" for name in ("record", "get", "put_heartbeat", "remove_heartbeat")),
]


@pytest.mark.parametrize("fault", ["fails", "hangs", "goes down"])
def test_stores_fail_at_every_point(moments, fault):
    """G1, G6, G11: at whichever point a store fails, once or for a while, the same worker sees everything through."""

    async def main(number: int) -> bool:
        scenario = Scenario()
        faults = Faults()
        async with trio.open_nursery() as nursery:

            async def outage() -> None:
                faults.down = True
                await trio.sleep(2)
                faults.down = False

            async def act(point: str) -> None:
                if len(faults.trace) != number:
                    return
                if fault == "hangs":
                    await trio.sleep_forever()
                if fault == "goes down":
                    nursery.start_soon(outage)
                    await trio.lowlevel.checkpoint()
                raise StoreUnavailableError("on demand", maybe_applied=point.endswith("after"))

            for operation in OPERATIONS:
                for point in (f"{operation}:before", f"{operation}:after"):
                    faults.at(point, lambda point=point: act(point))
            async with scenario.opened():
                async with scenario.worker(faults) as worker:
                    await scenario.all_ended()
                assert worker.in_flight == 0
                await trio.sleep(12)  # for a heartbeat that could not be withdrawn
                await scenario.check_end()
            scenario.check_waiters()
            # Longer disturbances cost leases.
            if fault == "fails":
                scenario.check_exactly_once()
                assert worker.totals["lease_lost"] == 0
        assert {point.rpartition(":")[0] for point in faults.trace} <= set(OPERATIONS)
        return number < len(faults.trace)

    def play(number: int) -> bool:
        return run(main, number)

    assert moments(play) > 50
