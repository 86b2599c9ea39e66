"""A task that fails twice, a strategy that says when to try again, and listeners that are told of it.

python examples/retries_and_signals.py
"""

from collections.abc import Mapping
from typing import Any

import trio

from stem_trio import (
    ExponentialJitterRetryStrategy,
    InMemoryBroker,
    InMemoryResultBackend,
    Stem,
    StemSignals,
    TaskContext,
    TaskHandler,
    TaskOptions,
    Worker,
)

signals = StemSignals()  # an instance; `stem_trio.signals.default` is the process-wide one used when none is given


@signals.task_retry.connect
async def on_retry(event):  # sync or async; errors in listeners never reach the task
    print(f"attempt {event.attempt} failed with {event.error.type}; next run at {event.next_retry_at:%H:%M:%S}")


@signals.task_succeeded.connect
def on_success(event):
    print(f"{event.task_name} succeeded on attempt {event.attempt}")


class FlakyTask(TaskHandler[str]):
    name = "demo.flaky"
    options = TaskOptions(max_retries=2)

    async def call(self, context: TaskContext, args: Mapping[str, Any]) -> str:
        if context.attempt < 2:
            raise ConnectionError("not yet")
        return "done"


async def main():
    flaky = FlakyTask()
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend, trio.open_nursery() as nursery:
        worker = Worker(
            broker=broker,
            backend=backend,
            tasks=[flaky],
            signals=signals,
            retry_strategy=ExponentialJitterRetryStrategy(base=0.2, max=1.0, seed=7),
        )
        await worker.start(nursery)
        stem = Stem(broker, backend, tasks=[flaky], signals=signals)
        result = await stem.wait_for_task(await stem.enqueue("demo.flaky"), timeout=10)
        print(f"{result.value} after {result.attempt} failures")
        await worker.shutdown()


if __name__ == "__main__":
    trio.run(main)
