"""Who is measured, and how much work each is given.

Slow rivals get fewer tasks: their rates are steady long before the end, and a round has to be short, since only figures
of one round are divided by each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

__all__ = ["CONTENDERS", "FLOOR", "STEM", "Contender", "Load"]

STEM: Final = "stem-trio"
FLOOR: Final = "floor"
FULL: Final = 20_000
"""No-ops of the full drain, to which all other amounts are in proportion."""


@attrs.frozen(kw_only=True)
class Load:
    """How many tasks each phase has in a full run.

    Args:
        sequential: enqueued one by one.
        concurrent: enqueued by 100 callers.
        batch: enqueued by the API for batches; 0 where there is none.
        drain: no-ops that a worker drains.
        sleeps: tasks that sleep.
        counted: no-ops during which commands are counted.
        trips: round trips with the settings as they come.
        tuned_trips: round trips with polls of 1 ms; 0 where there is no such setting.
    """

    sequential: int = 3_000
    concurrent: int = 10_000
    batch: int = 0
    drain: int = FULL
    sleeps: int = 2_000
    counted: int = 2_000
    trips: int = 200
    tuned_trips: int = 0

    def scaled(self, drain: int) -> Load:
        """The same in proportion to a full drain of so many."""

        def scale(count: int, least: int) -> int:
            return min(count, max(least, count * drain // FULL))

        return Load(
            sequential=scale(self.sequential, 100),
            concurrent=scale(self.concurrent, 200),
            batch=scale(self.batch, 1000),
            drain=max(200, self.drain * drain // FULL),
            sleeps=scale(self.sleeps, 40),
            counted=scale(self.counted, 200),
            trips=scale(self.trips, 3),
            tuned_trips=scale(self.tuned_trips, 20),
        )


@attrs.frozen(kw_only=True)
class Contender:
    """One row of the tables.

    Args:
        name: short, for the command line.
        title: for readers.
        environment: name of its virtual environment.
        module: its app, for the producer.
        command: its worker; the first word is a program of its environment.
        load: how much work it is given.
        variant: which variant the app is to be.
        enqueues_like: another contender with the same producer, whose figures of enqueueing are also its own.
        phases: what it is measured in; None for all.
    """

    name: str
    title: str
    environment: str
    module: str
    command: tuple[str, ...]
    load: Load = Load()
    variant: str = ""
    enqueues_like: str | None = None
    phases: tuple[str, ...] | None = None

    def settings(self, *, tuned: bool = False) -> Mapping[str, str]:
        """What its programs are told by the environment."""
        return {"RIVALS_VARIANT": self.variant, "RIVALS_TUNED": "1" if tuned else "0"}


def _celery(pool: str, width: int) -> tuple[str, ...]:
    options = ("-P", pool, "-c", str(width), "--loglevel", "WARNING")
    return ("celery", "-A", "rivals.apps.celery", "worker", *options)


def _dramatiq(threads: int) -> tuple[str, ...]:
    return ("dramatiq", "rivals.apps.dramatiq", "--processes", "1", "--threads", str(threads))


_STREAQ: Final = ("streaq", "run", "rivals.apps.streaq:worker")
_SLOW: Final = Load(concurrent=6_000, drain=5_000, sleeps=1_000, counted=1_000)
_STREAQ_LOAD: Final = attrs.evolve(_SLOW, batch=10_000, trips=20, tuned_trips=200)
_TASKIQ: Final = ("taskiq", "worker", "rivals.apps.taskiq:broker", "--workers", "1", "--max-async-tasks", "100")

CONTENDERS: Final = {
    contender.name: contender
    for contender in (
        Contender(
            name=STEM,
            title="**stem-trio**",
            environment="stem",
            module="rivals.apps.stem",
            command=("python", "-m", "rivals.apps.stem"),
            load=Load(batch=20_000),
        ),
        Contender(
            name="stem-signed",
            title="stem-trio, signed",
            environment="stem",
            module="rivals.apps.stem",
            command=("python", "-m", "rivals.apps.stem"),
            load=Load(batch=20_000),
            variant="signed",
            phases=("enqueue", "drain"),
        ),
        Contender(
            name="stem-asyncio",
            title="stem-trio from uvloop",
            environment="stem",
            module="rivals.apps.stem_asyncio",
            command=("python", "-m", "rivals.apps.stem"),
            load=Load(batch=20_000),
            phases=("enqueue", "latency"),
        ),
        Contender(
            name="stem-blocking",
            title="stem-trio from threads",
            environment="stem",
            module="rivals.apps.stem_blocking",
            command=("python", "-m", "rivals.apps.stem"),
            load=Load(batch=20_000),
            phases=("enqueue", "latency"),
        ),
        Contender(
            name="streaq-uvloop",
            title="streaq, uvloop",
            environment="streaq",
            module="rivals.apps.streaq",
            command=_STREAQ,
            load=_STREAQ_LOAD,
            variant="uvloop",
        ),
        Contender(
            name="streaq-trio",
            title="streaq, trio",
            environment="streaq",
            module="rivals.apps.streaq",
            command=_STREAQ,
            load=_STREAQ_LOAD,
            variant="trio",
        ),
        Contender(
            name="taskiq",
            title="taskiq-redis, streams",
            environment="taskiq",
            module="rivals.apps.taskiq",
            command=(*_TASKIQ, "--log-level", "WARNING"),
            load=attrs.evolve(_SLOW, trips=10, tuned_trips=200),
        ),
        Contender(
            name="saq",
            title="SAQ",
            environment="saq",
            module="rivals.apps.saq",
            command=("saq", "rivals.apps.saq.settings"),
            load=attrs.evolve(_SLOW, trips=3, tuned_trips=200),
        ),
        Contender(
            name="arq",
            title="arq",
            environment="arq",
            module="rivals.apps.arq",
            command=("arq", "rivals.apps.arq.WorkerSettings", "--custom-log-dict", "rivals.apps.arq.QUIET"),
            load=attrs.evolve(_SLOW, trips=5, tuned_trips=200),
        ),
        Contender(
            name="dramatiq-8",
            title="dramatiq, 8 threads",
            environment="dramatiq",
            module="rivals.apps.dramatiq",
            command=_dramatiq(8),
            load=attrs.evolve(_SLOW, sleeps=300),
        ),
        Contender(
            name="dramatiq-100",
            title="dramatiq, 100 threads",
            environment="dramatiq",
            module="rivals.apps.dramatiq",
            command=_dramatiq(100),
            load=_SLOW,
            enqueues_like="dramatiq-8",
        ),
        Contender(
            name="celery-threads",
            title="celery, 100 threads",
            environment="celery",
            module="rivals.apps.celery",
            command=_celery("threads", 100),
            load=attrs.evolve(_SLOW, sequential=2_000, concurrent=3_000, drain=3_000),
        ),
        Contender(
            name="celery-prefork",
            title="celery, prefork 2",
            environment="celery",
            module="rivals.apps.celery",
            command=_celery("prefork", 2),
            load=attrs.evolve(_SLOW, drain=3_000, sleeps=100),
            enqueues_like="celery-threads",
        ),
        Contender(
            name=FLOOR,
            title="*bare floor*",
            environment="stem",
            module="rivals.apps.floor",
            command=("python", "-m", "rivals.apps.floor"),
            load=Load(batch=20_000),
        ),
    )
}
