"""The workers of the soak: each is started again whenever it has ended, until the crew is dismissed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, final

import trio

from .worker import NO_STORE

__all__ = ["Crew", "Member"]

_BENCHMARKS: Final = Path(__file__).resolve().parents[1]
_LAST_WORDS: Final = 60.0
"""Seconds that a worker may take to shut down."""


@final
class Member:
    """One place in the crew, held by one process after the other.

    Args:
        number: its number.

    Attributes:
        number: its number.
        starts: how many processes have held it.
        unexpected: exit codes of processes that ended by themselves.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.starts = 0
        self.unexpected: list[int] = []
        self._process: trio.Process | None = None
        self._struck = False
        self._dismissed = False

    @property
    def pid(self) -> int | None:
        """The process that holds it now."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def kill(self) -> None:
        """End it as a power cut would."""
        self._struck = True
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal, if there is one."""
        if self.pid is not None:
            os.kill(self.pid, number)

    async def run(self, command: list[str], log: Path) -> None:
        """Hold a process, and another one after it, until it is dismissed.

        Cancellation: the process is killed.
        """
        environment = {**os.environ, "PYTHONPATH": str(_BENCHMARKS)}
        while not self._dismissed:
            self._struck = False
            with log.open("ab") as output:
                self._process = await trio.lowlevel.open_process(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            self.starts += 1
            try:
                code = await self._process.wait()
            finally:
                if self._process.returncode is None:
                    self._process.kill()
                    with trio.CancelScope(deadline=trio.current_time() + 10, shield=True):
                        await self._process.wait()
            if not self._struck and code != NO_STORE and not (self._dismissed and code == 0):
                self.unexpected.append(code)
            if not self._struck and not self._dismissed:
                await trio.sleep(1)

    async def dismiss(self) -> bool:
        """Ask the process to end, and wait until it has; whether it did so in time."""
        self._dismissed = True
        process = self._process
        if process is None or process.returncode is not None:
            return True
        process.terminate()
        with trio.move_on_after(_LAST_WORDS):
            await process.wait()
            return True
        return False


@final
class Crew:
    """All workers.

    Args:
        size: how many.
        url: their server.
        folder: for ledgers and logs.
        result_ttl: seconds for which results are kept.
    """

    def __init__(self, size: int, url: str, folder: Path, result_ttl: float) -> None:
        self.members = [Member(number) for number in range(size)]
        self._url = url
        self._folder = folder
        self._result_ttl = result_ttl
        self._scopes = {member: trio.CancelScope() for member in self.members}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run them until they are dismissed."""
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(self._hold, member)
            task_status.started()

    async def _hold(self, member: Member) -> None:
        name = f"worker-{member.number}"
        ledger, log = self._folder / f"{name}.ledger", self._folder / f"{name}.log"
        command = [sys.executable, "-m", "soaking.worker", self._url, str(ledger), str(self._result_ttl)]
        with self._scopes[member]:
            await member.run(command, log)

    async def dismiss(self) -> bool:
        """Shut all of them down; whether each of them did so in time."""
        in_time: list[bool] = []

        async def one(member: Member) -> None:
            in_time.append(await member.dismiss())
            self._scopes[member].cancel()

        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(one, member)
        return all(in_time)
