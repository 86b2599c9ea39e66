"""The tasks of the soak, each of which writes down when it starts and when it has done its work."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

import trio

from stem_trio import RetryPolicy, Task, TaskContext, task
from stem_trio.task import TaskCall

from .ledger import EFFECT, STARTED, Writer

__all__ = ["LEASE", "SoakTasks"]

LEASE: Final = 2.0
"""Seconds. Short, so that what a dead worker held comes back many times in a run."""
_STRIKES: Final = 1000
"""No task is to be given up because its workers are killed again and again: that is what this is about."""


class SoakTasks:
    """The tasks.

    Args:
        ledger: where handlers write; None for a producer, which runs none.
        result_ttl: seconds for which results are kept.
    """

    def __init__(self, ledger: Writer | None, result_ttl: float) -> None:
        options: dict[str, Any] = {"visibility_timeout": LEASE, "max_strikes": _STRIKES, "result_ttl": result_ttl}

        @contextmanager
        def work(context: TaskContext) -> Generator[None, None, None]:
            assert ledger is not None, "handlers run in workers"
            ledger.write(STARTED, context.id, context.deliveries)
            yield
            ledger.write(EFFECT, context.id, context.deliveries)

        @task(name="soak.quick", **options)
        async def quick(context: TaskContext, number: int) -> int:
            with work(context):
                return number

        @task(name="soak.waits", **options)
        async def waits(context: TaskContext, seconds: float) -> None:
            with work(context):
                await trio.sleep(seconds)

        @task(name="soak.shaky", max_retries=20, retry_policy=RetryPolicy(base=0.2, factor=1.0), **options)
        async def shaky(context: TaskContext) -> None:
            with work(context):
                if context.attempt == 0:
                    raise ConnectionError("once")

        @task(name="soak.blocks", **options)
        def blocks(context: TaskContext, number: int) -> str:
            with work(context):
                return "x" * (number % 1000)

        self.quick, self.waits, self.shaky, self.blocks = quick, waits, shaky, blocks
        self.all: list[Task[..., ..., Any, Any]] = [quick, waits, shaky, blocks]

    def choose(self, random: Random, number: int) -> TaskCall[Any]:
        """A call, most often to the quick one."""
        choices: list[tuple[float, Callable[[], TaskCall[Any]]]] = [
            (0.70, lambda: self.quick.bind(number)),
            (0.10, lambda: self.waits.bind(random.uniform(0.0, 0.5))),
            (0.01, lambda: self.waits.bind(1.5 * LEASE)),
            (0.05, self.shaky.bind),
            (0.07, lambda: self.quick.with_options(delay=random.uniform(0.1, 3.0)).bind(number)),
            (0.07, lambda: self.blocks.bind(number)),
        ]
        [chosen] = random.choices([make for _, make in choices], [weight for weight, _ in choices])
        return chosen()
