"""What tests of a worker's life share: stores that fail on demand, and a trace of everything that was seen."""

from __future__ import annotations

import attrs
import trio

from stem_trio import FixedRetryStrategy, InMemoryBroker, InMemoryResultBackend, Stem, StemSignals, Worker, task
from stem_trio.clock import TrioClock
from stem_trio.context import TaskContext
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker

TASK_SIGNALS = (
    "task_received",
    "task_prerun",
    "task_soft_timeout",
    "task_succeeded",
    "task_retry",
    "task_failed",
    "task_dead_lettered",
    "task_revoked",
    "task_expired",
    "task_released",
    "task_lease_lost",
    "task_postrun",
)
PUBLISH_SIGNALS = ("before_task_publish", "after_task_publish")
WORKER_SIGNALS = ("worker_init", "worker_ready", "worker_heartbeat", "worker_stopping", "worker_shutdown")


class World:
    """Stores in memory that workers see fail on demand and a producer that does not, under the clock of the test.

    Attributes:
        faults: what goes wrong for workers.
        trace: what was seen so far, as text: signals, records that were written, settlements that were made, and what
            tests add to it.
    """

    def __init__(self) -> None:
        self.clock = TrioClock()
        self.faults = Faults()
        self.listener_errors: list[tuple[str, Exception]] = []
        self.signals = StemSignals(on_error=lambda name, error: self.listener_errors.append((name, error)))
        self.memory_broker = InMemoryBroker(clock=self.clock)
        self.memory_backend = InMemoryResultBackend()
        self.broker = FaultyBroker(self.memory_broker, self.faults)
        self.backend = FaultyBackend(self.memory_backend, self.faults)
        self.stem = Stem(self.memory_broker, self.memory_backend, signals=StemSignals(), clock=self.clock)
        self.trace: list[str] = []
        self.events: list[tuple[str, object]] = []

    def worker(self, *tasks, **options) -> Worker:
        """A worker for these tasks; retries come at once unless `retry_strategy` says otherwise."""
        options.setdefault("signals", self.signals)
        options.setdefault("clock", self.clock)
        options.setdefault("retry_strategy", FixedRetryStrategy(0))
        options.setdefault("name", "test")
        return Worker(self.broker, self.backend, tasks=tasks, **options)

    def listen(self, *names: str) -> None:
        """Write these signals into the trace, and their events into `events`."""
        for name in names:

            def heard(event, name=name) -> None:
                self.trace.append(name)
                self.events.append((name, event))

            getattr(self.signals, name).connect(heard)

    def watch_stores(self) -> None:
        """Write into the trace what is published, recorded and settled, by whomever, once it is done."""
        publish, record, settle = self.memory_broker.publish, self.memory_backend.record, self.memory_broker.settle

        async def traced_publish(envelopes, *, delay=0.0):
            accepted = await publish(envelopes, delay=delay)
            self.trace += ["publish" for created in accepted if created]
            return accepted

        async def traced_record(statuses):
            written = await record(statuses)
            for status, new in zip(statuses, written, strict=True):
                self.trace.append(f"status {status.state.value}" + ("" if new else " (refused)"))
            return written

        async def traced_settle(settlements):
            settled = await settle(settlements)
            for (_, settlement), applied in zip(settlements, settled, strict=True):
                self.trace.append(f"settle {type(settlement).__name__}" + ("" if applied else " (refused)"))
            return settled

        self.memory_broker.publish = traced_publish
        self.memory_backend.record = traced_record
        self.memory_broker.settle = traced_settle

    def event(self, name: str):
        """The one event of this name."""
        [event] = [event for heard, event in self.events if heard == name]
        return event

    async def enqueue(self, task, *args, **options) -> str:
        """Enqueue a call; its id."""
        return (await task.with_options(**options).enqueue(self.stem, *args)).id

    async def places(self, queue: str = "default") -> tuple[int, int, int, int]:
        """How many tasks of a queue are (ready, delayed, leased, dead)."""
        stats = await self.memory_broker.stats(queue)
        return stats.ready, stats.delayed, stats.leased, stats.dead

    async def status(self, task_id: str):
        """The status of a task that is known."""
        status = await self.memory_backend.get(task_id)
        assert status is not None
        return status

    async def state(self, task_id: str) -> str:
        """The state of a task that is known, as text."""
        return (await self.status(task_id)).state.value

    async def claim(self, queue: str = "default"):
        """Claim what is ready, all of it, as another worker would; by task id."""
        deliveries = await self.memory_broker.claim([queue], consumer="other", limit=1000, wait=0)
        return {delivery.envelope.id: delivery for delivery in deliveries}


@attrs.define
class Probe:
    """A task that runs for some time and writes down what happens to it.

    Attributes:
        lasts: seconds that it takes.
        cleanup: seconds of shielded work when it is cancelled.
        obeys: whether it returns when it is asked to.
        began: when runs began.
        asked: when runs saw that they were asked to end.
        ended: when and how runs ended, after their cleanup.
        running: runs under way.
        contexts: of the runs.
    """

    lasts: float = float("inf")
    cleanup: float = 0.0
    obeys: bool = False
    began: list[float] = attrs.field(factory=list)
    asked: list[float] = attrs.field(factory=list)
    ended: list[tuple[float, str]] = attrs.field(factory=list)
    running: int = 0
    contexts: list[TaskContext] = attrs.field(factory=list)

    async def run(self, context: TaskContext) -> str:
        self.began.append(trio.current_time())
        self.contexts.append(context)
        self.running += 1
        end = "cancelled"
        try:
            end = await self._work(context)
            return end
        finally:
            if end == "cancelled":
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.cleanup)
            self.ended.append((trio.current_time(), end))
            self.running -= 1

    async def _work(self, context: TaskContext) -> str:
        end = "done"
        async with trio.open_nursery() as nursery:

            async def look() -> None:
                nonlocal end
                await context.cancelled.wait()
                self.asked.append(trio.current_time())
                if self.obeys:
                    end = "obeyed"
                    nursery.cancel_scope.cancel()

            nursery.start_soon(look)
            await trio.sleep(self.lasts)
            nursery.cancel_scope.cancel()
        return end

    def task(self, name: str = "probe", **options):
        """The task."""
        options.setdefault("max_retries", 3)
        return task(name=name, **options)(self.run)
