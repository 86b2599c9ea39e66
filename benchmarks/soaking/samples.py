"""What is measured while the soak runs, and whether it stays flat."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, final

import attrs
import trio
from rivals import processes
from rivals.server import Server

from .crew import Crew
from .ledger import Books

__all__ = ["Sample", "Trend", "sample", "trends"]

_ALLOWED: Final = 1.1
"""How much greater the median of the last quarter may be than that of the second."""


@final
@attrs.frozen(kw_only=True)
class Sample:
    """One look.

    Args:
        at: seconds since the start.
        steady_rss: MiB of the worker that is never killed.
        crew_rss: MiB of all workers.
        keys: in the server.
        server_memory: MiB that the server uses for data.
        accepted: tasks so far.
        finished: tasks so far.
    """

    at: float
    steady_rss: float
    crew_rss: float
    keys: int
    server_memory: float
    accepted: int
    finished: int


@final
@attrs.frozen(kw_only=True)
class Trend:
    """Medians of a figure in the second and in the last quarter of a run.

    Args:
        name: of the figure.
        second: median of the second quarter.
        last: median of the last quarter.
        slack: by how much it may grow whatever the ratio.
    """

    name: str
    second: float
    last: float
    slack: float

    @property
    def flat(self) -> bool:
        """Whether it did not grow."""
        return self.last <= max(self.second * _ALLOWED, self.second + self.slack)


async def sample(crew: Crew, server: Server, books: Books, every: float, into: list[Sample]) -> None:
    """Look now and then, for ever."""
    started = trio.current_time()
    while True:
        await trio.sleep(every)
        keys, mebibytes = await trio.to_thread.run_sync(server.size)
        pids = [member.pid for member in crew.members]
        into.append(
            Sample(
                at=round(trio.current_time() - started, 1),
                steady_rss=processes.memory([pids[0]]).resident if pids[0] is not None else 0.0,
                crew_rss=processes.memory([pid for pid in pids if pid is not None]).resident,
                keys=keys,
                server_memory=mebibytes,
                accepted=len(books.accepted),
                finished=len(books.finishes),
            )
        )


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """How the figures developed; nothing for a run with less than eight looks."""
    quarter = len(samples) // 4
    if quarter < 2:
        return []
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    slacks = {"steady_rss": 3.0, "crew_rss": 8.0, "keys": 200.0, "server_memory": 1.0}
    return [
        Trend(
            name=name,
            second=statistics.median(getattr(look, name) for look in second),
            last=statistics.median(getattr(look, name) for look in last),
            slack=slack,
        )
        for name, slack in slacks.items()
    ]
