"""A worker in a process of its own, as the demo sees it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from .printer import Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .printer import Printer

__all__ = ["WorkerProcess"]

_START: Final = 15.0
"""Seconds that a process may take to be ready, which is an import on a machine that may be busy."""
_END: Final = 5.0


@final
class WorkerProcess:
    """A worker process. Made and watched by `run`, in a nursery.

    Args:
        name: what to call it.
        process: the process.

    Attributes:
        name: what it is called.
        id: id of the worker in it.
        returncode: how the process ended; None while it runs.
    """

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name: Final = name
        self.id = ""
        self._process = process
        self._ready = trio.Event()
        self._ended = trio.Event()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended."""
        return self._process.returncode

    @classmethod
    async def run(
        cls,
        file: str,
        name: str,
        queues: Sequence[str],
        printer: Printer,
        *,
        task_status: trio.TaskStatus[WorkerProcess] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start one, print what it tells, and return when it has ended. Started when the worker is ready.

        Cancellation: it is killed and reaped.

        Raises:
            TooSlowError: it is not ready in time.
            RuntimeError: it has ended before it was ready.
        """
        command = [sys.executable, "-m", f"{__package__}.worker", file, name, *queues]
        start = partial(
            trio.run_process,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            check=False,
            deliver_cancel=_kill,
            **_APART,
        )
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(start)
            assert process.stdin is not None
            async with process.stdin:
                worker = cls(name, process)
                nursery.start_soon(worker._watch, printer)
                with trio.fail_after(_START):
                    await worker._ready.wait()
                if not worker.id:
                    raise RuntimeError(f"worker {name} has ended before it was ready")
                printer.say(f"{name} is at work, process {worker.pid}")
                task_status.started(worker)
                await worker._ended.wait()

    async def _watch(self, printer: Printer) -> None:
        assert self._process.stdout is not None
        rest = b""
        async with self._process.stdout as output:
            async for received in output:
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    self._told(msgspec.json.decode(line, type=Line), printer)
        # In `rest` is what a worker had begun to write when it was killed.
        await self._process.wait()
        self._ready.set()
        self._ended.set()

    def _told(self, line: Line, printer: Printer) -> None:
        if line.what == "ready":
            self.id = line.detail
            self._ready.set()
        else:
            printer.event(self.name, line)

    async def kill(self) -> None:
        """End it at once, by ``SIGKILL``: it has no chance to do anything more. Returns when it is gone.

        Cancellation: it is killed all the same.

        Raises:
            TooSlowError: it is not gone in time.
        """
        self._process.kill()
        with trio.fail_after(_END):
            await self._ended.wait()

    async def stop(self) -> None:
        """Let it finish what runs, and wait for its end.

        Cancellation: it goes on to its end.

        Raises:
            TooSlowError: it has not ended in time.
        """
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.fail_after(_END):
            await self._ended.wait()


_APART: Final[dict[str, Any]] = {}
"""Ctrl-C in a terminal goes to all processes of a group. The demo alone is to have it, and to end its worker."""
if sys.platform == "win32":
    _APART["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _APART["process_group"] = 0


async def _kill(process: trio.Process) -> None:
    """What a cancellation does to a worker: it is the demo's own, and what it holds is kept in the file."""
    process.kill()
    await trio.lowlevel.checkpoint()
