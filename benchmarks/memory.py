"""Whether memory stays flat: many tasks through one worker and the in-memory stores, with resident memory on the way.

A mix of fates: successes with and without progress, retries, and failures that end as dead letters. What is kept has
its bounds (10,000 finished statuses, 10,000 dead letters for each queue); memory grows until those are reached and must
not grow after.

    python benchmarks/memory.py [--tasks 200000]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

import trio

from stem_trio import FixedRetryStrategy, StemApp, StemSignals, TaskContext, task


@task(name="bench.mixed", max_retries=1)
async def mixed(context: TaskContext, number: int) -> str:
    """Mostly succeeds; one in ten needs a retry, one in a hundred fails for good."""
    if number % 100 == 0:
        raise ValueError("for good")
    if number % 10 == 0 and context.attempt == 0:
        raise ConnectionError("once")
    if number % 50 == 1:
        await context.progress(50, {"number": number})
    return f"result {number}"


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(count: int) -> None:
    """Run the tasks in waves, and print resident memory after each tenth."""
    app = StemApp.in_memory(
        tasks=[mixed], concurrency=100, signals=StemSignals(), retry_strategy=FixedRetryStrategy(0.01)
    )
    async with app:
        await app.start()
        print(f"{0:>9,} tasks  {resident():7.1f} MiB")
        wave = 1000
        for first in range(0, count, wave):
            await app.enqueue_many([mixed.bind(number) for number in range(first, first + wave)])
            await app.drain()
            done = first + wave
            if done % (count // 10) == 0:
                gc.collect()
                print(f"{done:>9,} tasks  {resident():7.1f} MiB", flush=True)
        print(dict(app.worker.totals))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200_000)
    trio.run(measure, parser.parse_args().tasks)
    sys.exit(0)


if __name__ == "__main__":
    import logging

    logging.getLogger("stem_trio").setLevel(logging.CRITICAL)
    main()
