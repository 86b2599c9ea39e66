"""The tasks that fault tests run, each of which writes what it does into the ledger."""

from __future__ import annotations

import os

import trio

from stem_trio import FixedRetryStrategy, Stem, TaskContext, task
from stem_trio.task import TaskCall
from stem_trio.testing.faults import Faults
from tests.faults.ledger import Ledger

LEASE = 1.0
"""Seconds. Short, so that what a dead worker held comes back soon; a renewal every third must still be in time."""

RETRY = FixedRetryStrategy(0.1)


class PlannedError(Exception):
    """What handlers fail with."""


class Tasks:
    """The tasks of one process.

    Args:
        ledger: where they write.
        faults: their effects are points there: ``handler.effect:before`` and ``handler.effect:after``.
    """

    def __init__(self, ledger: Ledger, faults: Faults | None = None) -> None:
        self.ledger = ledger
        self._faults = faults if faults is not None else Faults()

        @task(name="quick", visibility_timeout=LEASE)
        async def quick(context: TaskContext) -> str:
            with ledger.run(context) as facts:
                await self._effect(facts)
            return context.id

        @task(name="sleeps", visibility_timeout=LEASE)
        async def sleeps(context: TaskContext, seconds: float) -> None:
            with ledger.run(context) as facts:
                await trio.sleep(seconds)
                await self._effect(facts)

        @task(name="long", visibility_timeout=LEASE)
        async def long(context: TaskContext) -> None:
            with ledger.run(context) as facts:
                await context.progress(50)
                await trio.sleep(0.7 * LEASE)
                await self._effect(facts)

        @task(name="recovers", visibility_timeout=LEASE, max_retries=2)
        async def recovers(context: TaskContext) -> None:
            with ledger.run(context) as facts:
                if context.attempt < 1:
                    raise PlannedError
                await self._effect(facts)

        @task(name="fails", visibility_timeout=LEASE)
        async def fails(context: TaskContext) -> None:
            with ledger.run(context):
                raise PlannedError

        @task(name="parent", visibility_timeout=LEASE)
        async def parent(context: TaskContext) -> str:
            with ledger.run(context) as facts:
                # Its id is the parent's choice, so that a parent which is run again finds the child that it had.
                child = await quick.with_options(task_id=f"{context.id}.child").enqueue(context)
                ledger.accepted([child.id])
                await self._effect(facts)
            return child.id

        @task(name="exits", visibility_timeout=LEASE, max_strikes=2)
        async def exits(context: TaskContext) -> None:
            with ledger.run(context):
                os._exit(70)

        self.quick, self.sleeps, self.long, self.parent = quick, sleeps, long, parent
        self.recovers, self.fails, self.exits = recovers, fails, exits
        self.all = [quick, sleeps, long, recovers, fails, parent, exits]

    async def _effect(self, facts: dict[str, object]) -> None:
        await self._faults.reach("handler.effect:before")
        self.ledger.effect(facts)
        await self._faults.reach("handler.effect:after")

    async def accept(self, stem: Stem, *calls: TaskCall) -> list[str]:
        """Enqueue calls, one after the other, and write down that they were accepted."""
        ids = []
        for call in calls:
            ids.append((await stem.submit(call)).id)
            self.ledger.accepted(ids[-1:])
        return ids

    def one_of_each(self) -> list[TaskCall]:
        """A call for each way in which a task can go, poison apart; in the order in which they are to be done."""
        return [
            self.quick.bind(),
            self.recovers.bind(),
            self.long.bind(),
            self.fails.bind(),
            self.parent.bind(),
            self.quick.with_options(delay=0.3).bind(),
        ]
