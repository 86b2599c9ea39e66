"""What is measured: one function for each phase, each giving figures by name."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from . import processes
from .contenders import Contender, Load
from .programs import Stage, WorkerProgram, produce
from .server import CommandCounter, Server

__all__ = ["PHASES", "Bench"]

Figures = dict[str, float]

_START: Final = 30.0
"""Seconds that any worker may take to start."""
_SLOWEST: Final = 100.0
"""Tasks per second below which a contender is given up."""
_SETTLE: Final = 0.7
"""Seconds after the last body in which a worker settles what has ended."""


@attrs.frozen
class Bench:
    """What a phase needs.

    Args:
        stage: where programs run.
        server: the server.
        contender: who is measured.
        load: how much of everything.
    """

    stage: Stage
    server: Server
    contender: Contender
    load: Load

    def patience(self, count: int) -> float:
        """Seconds that so many tasks may take."""
        return _START + count / _SLOWEST

    def produce(self, action: str, count: int) -> Mapping[str, float]:
        """Enqueue."""
        report: Mapping[str, float] = produce(self.stage, self.contender, action, count, patience=self.patience(count))
        return report

    def fill(self, count: int) -> None:
        """Have so many no-ops wait in a queue that was empty."""
        self.server.wipe()
        if self.load.batch:
            self.produce("batch", count)
        else:
            self.produce("concurrent", count)


def enqueue(bench: Bench) -> Figures:
    """One by one, 100 at once, and in batches."""
    figures: Figures = {}
    if bench.contender.enqueues_like is not None:
        return figures
    for action, count in (
        ("sequential", bench.load.sequential),
        ("concurrent", bench.load.concurrent),
        ("batch", bench.load.batch),
    ):
        if not count:
            continue
        bench.server.wipe()
        report = bench.produce(action, count)
        figures[f"enqueue_{action}"] = count / report["seconds"]
        figures[f"enqueue_{action}_cpu_us"] = report["cpu_seconds"] / count * 1e6
    return figures


def drain(bench: Bench) -> Figures:
    """A full queue, one worker; timed from the first body to the last, so that its start does not count."""
    count = bench.load.drain
    bench.fill(count)
    with WorkerProgram(bench.stage, bench.contender) as worker:
        worker.wait(1, _START)
        cpu, server_cpu = processes.cpu_seconds(worker.pids()), bench.server.cpu_seconds()
        begun = worker.seen()
        seen = worker.wait(count, bench.patience(count))
        cpu_after, server_cpu_after = processes.cpu_seconds(worker.pids()), bench.server.cpu_seconds()
        time.sleep(_SETTLE)
        memory = processes.memory(worker.pids())
        again = worker.seen()
    keys, mebibytes = bench.server.size()
    figures = {
        "drain": seen.done / (seen.last - seen.first),
        "drain_start": seen.first - worker.started,
        "drain_ran_twice": float(again.done - count),
        "rss_after": memory.resident,
        "pss_after": memory.shared_once,
        "processes": float(memory.processes),
        "keys_after": float(keys),
        "server_memory_after": mebibytes,
    }
    if timed := count - begun.done:
        figures["worker_cpu_us"] = (cpu_after - cpu) / timed * 1e6
        if server_cpu is not None and server_cpu_after is not None:
            figures["server_cpu_us"] = (server_cpu_after - server_cpu) / timed * 1e6
    return figures


def commands(bench: Bench) -> Figures:
    """Commands for each task of a drain; the few of start-up are in it."""
    count = bench.load.counted
    bench.fill(count)
    executed = bench.server.executed()
    with CommandCounter(bench.server) as counter, WorkerProgram(bench.stage, bench.contender) as worker:
        worker.wait(count, bench.patience(count))
        time.sleep(_SETTLE)
    total = counter.total()
    return {
        "commands_sent": total.sent / count,
        "commands_in_scripts": total.in_scripts / count,
        "commands_executed": (bench.server.executed() - executed) / count,
    }


def latency(bench: Bench) -> Figures:
    """Round trips, one at a time, to a worker that has nothing else to do; and its memory before it did much."""
    figures: Figures = {}
    for name, tuned, trips in (("default", False, bench.load.trips), ("tuned", True, bench.load.tuned_trips)):
        if not trips:
            continue
        bench.fill(1)
        with WorkerProgram(bench.stage, bench.contender, tuned=tuned) as worker:
            worker.wait(1, _START)
            time.sleep(_SETTLE)
            if not tuned:
                memory = processes.memory(worker.pids())
                figures |= {"rss_idle": memory.resident, "pss_idle": memory.shared_once}
            report = produce(bench.stage, bench.contender, "latency", trips, patience=_START + trips * 2, tuned=tuned)
        taken = sorted(report["latencies"])
        figures |= {
            f"latency_{name}_p50": statistics.median(taken) * 1e3,
            f"latency_{name}_p99": taken[math.ceil(len(taken) * 0.99) - 1] * 1e3,
            f"latency_{name}_trips": float(trips),
        }
    return figures


def sleeps(bench: Bench) -> Figures:
    """Tasks that sleep for 0.1 s."""
    count = bench.load.sleeps
    bench.server.wipe()
    bench.produce("sleepers", count)
    with WorkerProgram(bench.stage, bench.contender) as worker:
        seen = worker.wait(count, bench.patience(count))
    return {"sleeps": seen.done / (seen.last - seen.first)}


PHASES: Final[Mapping[str, Callable[[Bench], Figures]]] = {
    "enqueue": enqueue,
    "drain": drain,
    "commands": commands,
    "latency": latency,
    "sleeps": sleeps,
}
