"""What the runtime costs: no-op tasks through the in-memory stack, beside a bare loop that does the same work.

The bare loop starts a trio task for each message and, in it, opens a cancel scope with a deadline, decodes the message,
calls the function and encodes the result: what any worker on trio must do. Both run in alternating rounds of one
process, since the speed of a shared machine drifts; only figures of one round are divided by each other.

    python benchmarks/overhead.py [--tasks 20000] [--rounds 7] [--concurrency 100] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import trio

from stem_trio import InMemoryBroker, InMemoryResultBackend, Stem, StemSignals, Worker, task


@task(name="bench.noop")
async def noop(number: int) -> None:
    """Nothing."""


class Message(msgspec.Struct):
    """What the bare loop decodes: the fields that a worker looks at."""

    id: str
    name: str
    args: msgspec.Raw
    timeout: float


class Arguments(msgspec.Struct):
    """The arguments of the no-op."""

    number: int


class Result(msgspec.Struct):
    """What the bare loop encodes."""

    id: str
    value: object
    at: float


async def bare(count: int, concurrency: int) -> float:
    """Messages per second of the bare loop."""
    message = msgspec.json.encode(
        Message("01a1ff83-4b2c-7000-8244-f182c403a630", "bench.noop", msgspec.Raw(b'{"number":1}'), 30.0)
    )
    decode = msgspec.json.Decoder(Message).decode
    decode_arguments = msgspec.json.Decoder(Arguments).decode
    encode = msgspec.json.Encoder().encode
    functions: dict[str, Callable[[int], Awaitable[object]]] = {"bench.noop": noop.function}

    async def run(raw: bytes) -> None:
        received = decode(raw)
        with trio.CancelScope(deadline=trio.current_time() + received.timeout):
            value = await functions[received.name](decode_arguments(received.args).number)
        encode(Result(received.id, value, time.time()))

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count // concurrency):
            for _ in range(concurrency):
                nursery.start_soon(run, message)
            await trio.lowlevel.checkpoint()
    return count / (time.perf_counter() - started)


async def stack(count: int, concurrency: int) -> tuple[float, float, float]:
    """Tasks per second through the stack: enqueued in batches, drained, and both together."""
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend, trio.open_nursery() as nursery:
        signals = StemSignals()
        stem = Stem(broker, backend, tasks=[noop], signals=signals)
        begun = time.perf_counter()
        for first in range(0, count, 100):
            await stem.enqueue_many([noop.bind(number) for number in range(first, min(first + 100, count))])
        enqueued = time.perf_counter()
        worker = Worker(broker, backend, tasks=[noop], concurrency=concurrency, signals=signals)
        await worker.start(nursery)
        while worker.totals["succeeded"] < count:
            await worker.wait_settled()
        drained = time.perf_counter()
        await worker.shutdown()
        return count / (enqueued - begun), count / (drained - enqueued), count / (drained - begun)


def spread(values: list[float]) -> dict[str, float]:
    """Least, middle and greatest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows: dict[str, list[float]] = {"bare loop": [], "enqueue": [], "drain": [], "enqueue and drain": []}
    for round_number in range(options.rounds + 1):
        gc.collect()
        bare_rate = trio.run(bare, options.tasks, options.concurrency)
        gc.collect()
        rates = trio.run(stack, options.tasks, options.concurrency)
        if round_number == 0:
            continue  # warm-up
        for name, rate in zip(rows, (bare_rate, *rates), strict=True):
            rows[name].append(rate)

    versions = f"trio {version('trio')}, msgspec {version('msgspec')}"
    machine = f"{platform.machine()}, Python {platform.python_version()}, {versions}"
    print(f"{options.tasks} no-op tasks, concurrency {options.concurrency}, {options.rounds} rounds; {machine}\n")
    print(
        f"{'':20s} {'tasks/s, median':>16s} {'min .. max':>22s} {'of the bare loop, median':>26s} {'min .. max':>16s}"
    )
    report: dict[str, Any] = {
        "tasks": options.tasks,
        "concurrency": options.concurrency,
        "machine": machine,
        "rows": {},
    }
    for name, values in rows.items():
        ratios = [value / base for value, base in zip(values, rows["bare loop"], strict=True)]
        middle, ratio = spread(values), spread(ratios)
        report["rows"][name] = {"rate": middle, "ratio": ratio}
        print(
            f"{name:20s} {middle['median']:>16,.0f} {middle['min']:>11,.0f} ..{middle['max']:>9,.0f} "
            f"{ratio['median']:>26.2f} {ratio['min']:>8.2f} ..{ratio['max']:>5.2f}"
        )
    if options.json is not None:
        report["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
