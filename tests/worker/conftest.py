"""What the tests of the worker share: stores that fail on demand, workers over them, and a ledger of what was run."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import attrs
import pytest
import trio

from stem_trio import FixedRetryStrategy, InMemoryBroker, InMemoryResultBackend, Stem, StemSignals, Worker
from stem_trio.clock import TrioClock
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker

ENDS = (
    "task_succeeded",
    "task_failed",
    "task_retry",
    "task_revoked",
    "task_expired",
    "task_dead_lettered",
    "task_lease_lost",
    "task_released",
    "task_soft_timeout",
    "task_postrun",
)
"""Signals that do not hold a run up, other than `task_received` and `task_prerun`."""


@attrs.define
class Run:
    """One run of a handler, as the ledger has it."""

    id: str
    attempt: int
    deliveries: int
    worker: str
    began: float
    ended: float | None = None
    end: str | None = None


class Ledger:
    """What was accepted, started, done and ended, by handlers that write it down themselves."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.runs: list[Run] = []
        self.effects: Counter[str] = Counter()
        self.overlaps: list[str] = []
        self.peak = 0
        self._running: Counter[str] = Counter()

    @contextmanager
    def run(self, context):
        """A run of a handler: its beginning, its end, and whether the task was already being run elsewhere."""
        run = Run(context.id, context.attempt, context.deliveries, context.worker, trio.current_time())
        self.runs.append(run)
        if self._running[run.id]:
            self.overlaps.append(run.id)
        self._running[run.id] += 1
        self.peak = max(self.peak, self._running.total())
        try:
            yield run
            self.effects[run.id] += 1
            run.end = "done"
        except BaseException as error:
            run.end = type(error).__name__
            raise
        finally:
            run.ended = trio.current_time()
            self._running[run.id] -= 1

    @property
    def ends(self):
        """How the runs ended, in the order in which they began."""
        return [run.end for run in self.runs]

    def assert_exactly_once(self) -> None:
        """Everything that was accepted had its effect once, and never ran twice at a time."""
        assert self.effects == Counter(self.accepted)
        assert self.overlaps == []


class Rig:
    """Two stores in memory, workers over them that see them fail on demand, and a producer that does not.

    Attributes:
        faults: what goes wrong for workers that are not given faults of their own.
        events: the events of the signals in `ENDS`, once `listen` was called, as (name, event).
    """

    def __init__(self) -> None:
        self.clock = TrioClock()
        self.faults = Faults()
        self.signals = StemSignals(on_error=self._listener_failed)
        self.broker = InMemoryBroker(clock=self.clock)
        self.backend = InMemoryResultBackend()
        self.stem = Stem(self.broker, self.backend, signals=StemSignals(), clock=self.clock)
        self.ledger = Ledger()
        self.events = []
        self.listener_errors = []

    def _listener_failed(self, signal, error) -> None:
        self.listener_errors.append((signal, error))

    def worker(self, *tasks, faults=None, **options) -> Worker:
        """A worker for these tasks; retries come at once unless `retry_strategy` says otherwise."""
        faults = faults if faults is not None else self.faults
        options.setdefault("signals", self.signals)
        options.setdefault("clock", self.clock)
        options.setdefault("retry_strategy", FixedRetryStrategy(0))
        options.setdefault("name", "test")
        return Worker(FaultyBroker(self.broker, faults), FaultyBackend(self.backend, faults), tasks=tasks, **options)

    async def enqueue(self, task, *args, **options):
        """Enqueue a call, write it into the ledger, and return its handle."""
        handle = await task.with_options(**options).enqueue(self.stem, *args)
        self.ledger.accepted.append(handle.id)
        return handle

    async def enqueue_many(self, task, count, **options):
        """Enqueue calls without arguments together; returns their ids."""
        ids = await self.stem.enqueue_many([task.with_options(**options).bind() for _ in range(count)])
        self.ledger.accepted += ids
        return ids

    def listen(self, *names) -> None:
        """Collect the events of these signals, by default of all in `ENDS`, in `events`."""
        for name in names or ENDS:
            getattr(self.signals, name).connect(lambda event, name=name: self.events.append((name, event)))

    @property
    def heard(self):
        """Names of the events so far."""
        return [name for name, _ in self.events]

    def event(self, name):
        """The one event of this name."""
        [event] = [event for heard, event in self.events if heard == name]
        return event

    async def places(self, queue="default"):
        """How many tasks of a queue are (ready, delayed, leased, dead)."""
        stats = await self.broker.stats(queue)
        return stats.ready, stats.delayed, stats.leased, stats.dead

    async def status(self, task):
        """The status of a task that is known."""
        status = await self.stem.status(task)
        assert status is not None
        return status

    async def dead_letter(self, task, queue="default"):
        """The dead letter of a task that is dead."""
        letter = await self.broker.get_dead_letter(queue, str(task))
        assert letter is not None
        return letter


@pytest.fixture
async def rig():
    """Stores, a producer, and what makes workers; under whatever clock the test runs."""
    rig = Rig()
    async with rig.broker, rig.backend:
        yield rig


@pytest.fixture
def ledger(rig):
    """The ledger of the rig."""
    return rig.ledger
