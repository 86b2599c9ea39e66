"""What the stores on SQLite cost: no-op tasks through the whole stack, beside the same with the in-memory stores.

All run in alternating rounds of one process, since the speed of a shared machine drifts; only figures of one round are
divided by each other. Each round works on a new file, which is deleted afterwards; where it stands decides how long the
disk takes, so name a directory on the disk that matters.

    python benchmarks/sqlite.py [--tasks 10000] [--rounds 5] [--concurrency 100] [--directory DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio

from stem_trio import InMemoryBroker, InMemoryResultBackend, Stem, StemSignals, Worker, task
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend


@task(name="bench.noop")
async def noop(number: int) -> None:
    """Nothing."""


@asynccontextmanager
async def in_memory() -> AsyncGenerator[Any, None]:
    """Stores in memory."""
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend:
        yield broker, backend


@asynccontextmanager
async def on_sqlite(directory: Path | None, synchronous: str) -> AsyncGenerator[Any, None]:
    """Stores in a new file."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        path = Path(folder) / "bench.db"
        async with (
            SqliteBroker.open(path, synchronous=synchronous) as broker,
            SqliteResultBackend.open(path, synchronous=synchronous) as backend,
        ):
            yield broker, backend


async def measure(stores: Any, count: int, concurrency: int) -> dict[str, float]:
    """Tasks per second: enqueued one by one, enqueued in batches of 100, and drained by one worker."""
    rates = {}
    async with stores() as (broker, backend), trio.open_nursery() as nursery:
        signals = StemSignals()
        stem = Stem(broker, backend, tasks=[noop], signals=signals)
        singles = count // 20
        begun = time.perf_counter()
        for number in range(singles):
            await stem.enqueue_many([noop.bind(number)])
        rates["enqueue, one by one"] = singles / (time.perf_counter() - begun)
        begun = time.perf_counter()
        for first in range(singles, count, 100):
            await stem.enqueue_many([noop.bind(number) for number in range(first, min(first + 100, count))])
        rates["enqueue, by 100"] = (count - singles) / (time.perf_counter() - begun)
        worker = Worker(broker, backend, tasks=[noop], concurrency=concurrency, signals=signals)
        begun = time.perf_counter()
        await worker.start(nursery)
        while worker.totals["succeeded"] < count:
            await worker.wait_settled()
        rates["drain"] = count / (time.perf_counter() - begun)
        await worker.shutdown()
    return rates


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    variants = {
        "memory": in_memory,
        "NORMAL": partial(on_sqlite, options.directory, "NORMAL"),
        "FULL": partial(on_sqlite, options.directory, "FULL"),
    }
    rounds: list[dict[str, dict[str, float]]] = []
    for round_number in range(options.rounds + 1):
        measured = {}
        for name, stores in variants.items():
            gc.collect()
            measured[name] = trio.run(measure, stores, options.tasks, options.concurrency)
        if round_number:  # the first one warms up
            rounds.append(measured)

    machine = (
        f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"trio {version('trio')}"
    )
    print(f"{options.tasks} no-op tasks, concurrency {options.concurrency}, {options.rounds} rounds; {machine}\n")
    print(f"{'':30s} {'tasks/s, median':>16s} {'min .. max':>20s} {'of memory, median':>18s}")
    report: dict[str, Any] = {"tasks": options.tasks, "machine": machine, "rows": {}}
    for what in rounds[0]["memory"]:
        for name in variants:
            values = [measured[name][what] for measured in rounds]
            ratio = statistics.median(measured[name][what] / measured["memory"][what] for measured in rounds)
            median = statistics.median(values)
            report["rows"][f"{what}, {name}"] = {
                "min": min(values),
                "median": median,
                "max": max(values),
                "of memory": ratio,
            }
            print(
                f"{what + ', ' + name:30s} {median:>16,.0f} {min(values):>10,.0f} ..{max(values):>7,.0f} {ratio:>18.2f}"
            )
    if options.json is not None:
        report["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
