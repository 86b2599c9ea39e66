"""What befalls workers and their connections, at random."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, final

import trio

from tests.faults.proxy import FaultProxy

from .crew import Crew
from .tasks import LEASE

__all__ = ["Strikes"]


@final
class Strikes:
    """Kills, freezes and cuts.

    The first worker is never killed, so that one process lives through the whole run and its memory can be judged.

    Args:
        crew: the workers.
        proxy: what their connections go through.
        random: chooses.
        pause: seconds between two strikes, on average.

    Attributes:
        done: strikes by their kind.
    """

    def __init__(self, crew: Crew, proxy: FaultProxy, random: Random, pause: float) -> None:
        self._crew = crew
        self._proxy = proxy
        self._random = random
        self._pause = pause
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Strike for ever.

        Cancellation: what is held up is let go.
        """
        kinds: Final[dict[str, Callable[[], Awaitable[None]]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "reset": self._reset,
            "cut": self._cut,
            "blackhole": self._blackhole,
        }
        while True:
            await trio.sleep(self._random.uniform(0.5, 1.5) * self._pause)
            kind = self._random.choice(list(kinds))
            await kinds[kind]()
            self.done[kind] += 1

    async def _kill(self) -> None:
        self._random.choice(self._crew.members[1:]).kill()
        await trio.lowlevel.checkpoint()

    async def _freeze(self) -> None:
        """Stop a process for longer than its leases last."""
        member = self._random.choice(self._crew.members)
        member.send(signal.SIGSTOP)
        try:
            await trio.sleep(self._random.uniform(1.2, 2.5) * LEASE)
        finally:
            member.send(signal.SIGCONT)

    async def _reset(self) -> None:
        self._proxy.reset()
        await trio.lowlevel.checkpoint()

    async def _cut(self) -> None:
        """No connection at all for a while, at times for longer than leases last."""
        self._proxy.cut()
        try:
            await trio.sleep(self._random.uniform(0.1, 1.5) * LEASE)
        finally:
            self._proxy.heal()

    async def _blackhole(self) -> None:
        """Connections stand, and nothing comes through."""
        self._proxy.blackhole()
        try:
            await trio.sleep(self._random.uniform(0.1, 1.5) * LEASE)
        finally:
            self._proxy.heal()
