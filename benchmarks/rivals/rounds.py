"""The rounds: in each, every phase goes through all contenders, so that what is compared was measured together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from .contenders import Contender
from .phases import PHASES, Bench
from .programs import BenchError, Stage
from .server import Server

__all__ = ["Row", "calibrate", "run_rounds"]

_LOOPS: Final = 300_000


@attrs.frozen(kw_only=True)
class Row:
    """One contender in one phase of one round.

    Args:
        round: number of the round, from 1.
        phase: which.
        contender: who.
        figures: what was measured; empty where it failed.
        error: why it failed.
        seconds: how long all of it took.
        calibration_ns: nanoseconds that one turn of an empty loop took just before: the speed of the machine.
        at: when, in ISO format.
    """

    round: int
    phase: str
    contender: str
    figures: dict[str, float]
    error: str | None
    seconds: float
    calibration_ns: float
    at: str


def calibrate() -> float:
    """Nanoseconds of one turn of a loop that does nothing."""
    started = time.perf_counter()
    for _ in range(_LOOPS):
        pass
    return (time.perf_counter() - started) / _LOOPS * 1e9


def run_rounds(
    stage: Stage, server: Server, contenders: Sequence[Contender], phases: Sequence[str], rounds: int, tasks: int
) -> Iterator[Row]:
    """Measure; gives each row when it is there. A contender that fails in a phase does not end the rest."""
    for number in range(1, rounds + 1):
        # Each round begins with another contender and goes the other way: nobody is always the first or the last.
        shift = (number - 1) % len(contenders)
        order = [*contenders[shift:], *contenders[:shift]]
        if number % 2 == 0:
            order.reverse()
        for phase in phases:
            for contender in order:
                if contender.phases is not None and phase not in contender.phases:
                    continue
                yield _measure(stage, server, contender, phase, number, tasks)


def _measure(stage: Stage, server: Server, contender: Contender, phase: str, number: int, tasks: int) -> Row:
    speed = calibrate()
    started = time.monotonic()
    figures: dict[str, float] = {}
    error: str | None = None
    try:
        figures = PHASES[phase](Bench(stage, server, contender, contender.load.scaled(tasks)))
    except BenchError as failure:
        error = str(failure)
    finally:
        server.wipe()
    return Row(
        round=number,
        phase=phase,
        contender=contender.name,
        figures=figures,
        error=error,
        seconds=time.monotonic() - started,
        calibration_ns=speed,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
