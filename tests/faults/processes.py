"""Processes that a test starts, strikes, and waits for.

They are forked off a server that has imported everything beforehand: a hundred interpreters that start from nothing
would take longer than all the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import trio

from tests.faults.plans import Plan

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "stem_trio.stores.redis",
        "stem_trio.stores.sqlite",
        "tests.faults.worker_program",
        "tests.faults.producer_program",
    ]
)


def _enter(target: Callable[[Plan], None], plan: Plan, log: str) -> None:
    """What the process begins with: its output goes to a file, and signals do what they do by default."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    target(plan)
    sys.stdout.flush()


class Child:
    """A process that was started.

    Args:
        process: it.
        log: the file that its output goes to.
    """

    def __init__(self, process: BaseProcess, log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def wait(self, *, within: float = 30.0) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        with trio.move_on_after(within) as scope:
            await trio.lowlevel.wait_readable(self._process.sentinel)
        if scope.cancelled_caught:
            raise AssertionError(f"process {self.pid} did not end within {within:g} s:\n{self.output()}")
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code

    def output(self) -> str:
        """The end of what it has written."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


@asynccontextmanager
async def child(target: Callable[[Plan], None], plan: Plan) -> AsyncGenerator[Child, None]:
    """A process that runs `target`; it is gone when the block ends."""
    log = Path(f"{plan.ledger}.{target.__name__}.log")
    process = _context.Process(target=_enter, args=(target, plan, str(log)), daemon=True)
    process.start()
    try:
        yield Child(process, log)
    finally:
        if process.is_alive():
            process.kill()  # also ends one that is stopped
        process.join(5)
        process.close()
