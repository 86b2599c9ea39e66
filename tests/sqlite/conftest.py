"""What the tests of the SQLite stores share."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from stem_trio.stores.sqlite.sharing import Engines

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


def as_elsewhere(store):
    """A store with a thread and a connection of its own, as in another process."""
    store._engines = Engines()
    return store


class Program:
    """One of the programs in `programs.py`, running."""

    def __init__(self, process):
        self.process = process
        self._buffer = b""

    async def line(self):
        """The next line it prints; an empty one at the end."""
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._buffer:
                data = await self.process.stdout.receive_some()
                if not data:
                    return ""
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    async def rest(self):
        """All it prints until it ends."""
        lines = []
        while line := await self.line():
            lines.append(line)
        return lines

    async def go(self):
        """Give it a line of input."""
        await self.process.stdin.send_all(b"go\n")

    async def kill(self):
        """End it at once."""
        self.process.kill()
        await self.process.wait()


@pytest.fixture
def file(tmp_path):
    """A file that is not there yet."""
    return tmp_path / "stem.db"


@pytest.fixture
def run_program(file):
    """Runs a program on the file in another process, which is killed at the end of the block."""

    @asynccontextmanager
    async def run(name, argument="", **options):
        command = [sys.executable, "-m", "tests.sqlite.programs", name, str(file), str(argument)]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = await trio.lowlevel.open_process(
            command, stdin=-1, stdout=-1, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, **options
        )
        program = Program(process)
        try:
            yield program
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                if process.poll() is None:
                    process.kill()
                await process.wait()
                await process.stdin.aclose()
                await process.stdout.aclose()

    return run
