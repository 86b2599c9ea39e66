"""Where a fault test happens: one prefix in one store, one ledger, and what makes workers in it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import msgspec
import trio

from stem_trio import Broker, ResultBackend, Stem, StemSignals, StoreUnavailableError, TaskCall, Worker
from stem_trio.ids import new_task_id
from tests.faults.ledger import Ledger, eventually
from tests.faults.plans import Plan
from tests.faults.proxy import FaultProxy
from tests.faults.stores import open_stores
from tests.faults.tasks import RETRY, Tasks

POINT = "STEM_TEST_POINT"
"""Environment variable that names the only case of a test to play, as a failure tells it."""


@attrs.frozen
class Rig:
    """A place for a test.

    Attributes:
        url: of the stores.
        prefix: of their keys.
        ledger: where everybody writes.
        seed: of everything that is left to chance.
    """

    url: str
    prefix: str
    ledger: Ledger
    seed: int

    def plan(self, **options: Any) -> Plan:
        """A plan for a process in this place."""
        return Plan(url=self.url, prefix=self.prefix, ledger=str(self.ledger.path), seed=self.seed, **options)

    @asynccontextmanager
    async def opened(self, **options: Any) -> AsyncGenerator[Stores, None]:
        """The stores, open in this process."""
        async with open_stores(self.url, self.prefix, **options) as (broker, backend):
            yield Stores(self, broker, backend)

    def part(self, name: str) -> Rig:
        """A place of its own within this one, with a ledger of its own."""
        return attrs.evolve(self, prefix=f"{self.prefix}-{name}", ledger=Ledger(f"{self.ledger.path}-{name}"))


class Stores:
    """Open stores of a rig, and what a test does with them.

    Attributes:
        broker: the broker.
        backend: the result backend.
        ledger: the rig's.
        tasks: tasks that write into the ledger.
        stem: a producer.
    """

    def __init__(self, rig: Rig, broker: Broker, backend: ResultBackend) -> None:
        self.broker = broker
        self.backend = backend
        self.ledger = rig.ledger
        self.tasks = Tasks(rig.ledger)
        self.stem = Stem(broker, backend, signals=StemSignals())

    def worker(self, **options: Any) -> Worker:
        """A worker in this process, on these stores."""
        signals = StemSignals()
        self.ledger.listen(signals)
        return Worker(
            self.broker,
            self.backend,
            **{
                "tasks": self.tasks.all,
                "signals": signals,
                "retry_strategy": RETRY,
                "store_timeout": 5.0,
                "heartbeat_interval": 0.5,
                **options,
            },
        )

    async def accept(self, *calls: TaskCall[Any]) -> list[str]:
        """Enqueue calls, and write down that they were accepted."""
        return await self.tasks.accept(self.stem, *calls)

    async def accept_for_sure(self, *calls: TaskCall[Any]) -> list[str]:
        """Enqueue calls, each again and again under the same id while the store is away."""
        ids = []
        for call in calls:
            named = msgspec.structs.replace(call, task_id=call.task_id or new_task_id())
            with trio.fail_after(60):
                while True:
                    try:
                        ids += await self.accept(named)
                    except StoreUnavailableError:
                        await trio.sleep(0.05)
                    else:
                        break
        return ids

    async def drained(self, *workers: Worker, within: float = 30.0) -> None:
        """Wait until nothing is left to be done, and these workers know it and have said so."""

        async def empty() -> bool:
            return (await self.broker.stats("default")).unfinished == 0

        await eventually(empty, "the queue is empty", within=within)
        for worker in workers:
            # The store is a step ahead: its answer to the last settlement may still be under way.
            await eventually(lambda worker=worker: worker.in_flight == 0, "the worker knows it", within=within)
            await worker.wait_told()

    async def rescue(self, *, within: float = 30.0, **options: Any) -> Worker:
        """Let a healthy worker do what is left."""
        worker = self.worker(**options)
        async with worker:
            await self.drained(worker, within=within)
        return worker

    async def check(self, *, frozen: bool = False) -> None:
        """Hold the ledger against the stores, once nothing is left to be done."""
        await self.ledger.assert_drained(self.broker, self.backend, frozen=frozen)


async def play_all(
    rig: Rig, cases: Sequence[str], play: Callable[[Rig, str], Awaitable[object]], *, at_a_time: int
) -> None:
    """Play cases side by side, each in a place of its own; a failure tells which one it was."""
    limiter = trio.CapacityLimiter(at_a_time)

    async def one(number: int, case: str) -> None:
        async with limiter:
            try:
                await play(rig.part(str(number)), case)
            except Exception as error:
                error.add_note(f"at {case}; to play only that: {POINT}={case}")
                raise

    only = os.environ.get(POINT)
    async with trio.open_nursery() as nursery:
        for number, case in enumerate(cases):
            if only is None or case == only:
                nursery.start_soon(one, number, case)


@asynccontextmanager
async def proxied(rig: Rig) -> AsyncGenerator[tuple[FaultProxy, Rig], None]:
    """A proxy before the server, and the place as it is seen through it."""
    parts = urlsplit(rig.url)
    proxy = FaultProxy(parts.hostname or "", parts.port or 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        yield proxy, attrs.evolve(rig, url=parts._replace(netloc=f"127.0.0.1:{proxy.port}").geturl())
        nursery.cancel_scope.cancel()
