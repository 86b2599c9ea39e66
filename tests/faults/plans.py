"""What a process that a test starts is to do; made in the test, read in the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import attrs

from stem_trio.testing.faults import Faults
from tests.faults.ledger import Ledger

ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@attrs.frozen(kw_only=True)
class Plan:
    """A process.

    Attributes:
        url: where broker and backend are.
        prefix: of their keys.
        ledger: path of the ledger.
        backend_url: where the backend is, if elsewhere.
        seed: what jitter and choices of the process start from.
        fault: a point, which occurrence of it, and what happens there: ``broker.settle:after#3=kill``.
        concurrency: of the worker.
        prefetch: of the worker.
        heartbeat: its interval in seconds.
        until_drained: end when nothing is left in the queue; otherwise at a signal.
        grace: seconds that running handlers get after a first signal.
        clock_skew: seconds by which the wall clock is wrong.
        joint: whether broker and backend write as one what belongs together, where they can.
        script_comment: put before every script, so that the process has scripts of its own.
    """

    url: str
    prefix: str
    ledger: str
    backend_url: str | None = None
    seed: int = 0
    fault: str | None = None
    concurrency: int = 2
    prefetch: int = 1
    heartbeat: float = 0.5
    until_drained: bool = False
    grace: float = 30.0
    clock_skew: float = 0.0
    joint: bool = False
    script_comment: str = ""

    def faults(self, ledger: Ledger) -> Faults:
        """The faults of the process, with the one that was planned."""
        faults = Faults()
        if self.fault is not None:
            point, _, action = self.fault.partition("=")
            name, _, occurrence = point.partition("#")
            strike = _strike(ledger, point, action)
            faults.at(name, strike, skip=int(occurrence) - 1, times=1)
        return faults


def _strike(ledger: Ledger, point: str, action: str) -> Callable[[], Awaitable[object] | object]:
    def strike() -> None:
        ledger.write("struck", point=point)
        os.kill(os.getpid(), ACTIONS[action])

    return strike


def numbered(trace: list[str]) -> list[str]:
    """The points of a trace, each with its number among those of the same name."""
    count: dict[str, int] = {}
    points = []
    for name in trace:
        count[name] = count.get(name, 0) + 1
        points.append(f"{name}#{count[name]}")
    return points
