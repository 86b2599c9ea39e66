"""The programs of a contender: its worker, which is ended with all that it started, and its producer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from . import mark, processes
from .contenders import Contender
from .venvs import Environments

__all__ = ["BenchError", "Stage", "WorkerProgram", "produce"]

_BENCHMARKS: Final = Path(__file__).resolve().parents[1]
_LOOK: Final = 0.01
"""Seconds between two looks at the counter."""
_TAIL: Final = 1500


class BenchError(Exception):
    """A contender did not do what it was measured for."""


@final
class Stage:
    """Where the programs run.

    Args:
        url: the server.
        environments: the contenders' environments.
        folder: for the counter and for logs; empty.
    """

    def __init__(self, url: str, environments: Environments, folder: Path) -> None:
        self.url = url
        self.environments = environments
        self.folder = folder
        # In memory where there is a file system for it: the counter is written at each task.
        shm = Path("/dev/shm")
        handle, name = tempfile.mkstemp(prefix="rivals-", dir=shm if shm.is_dir() else folder)
        os.close(handle)
        self.counter = Path(name)

    def close(self) -> None:
        """Remove the counter."""
        self.counter.unlink(missing_ok=True)

    def variables(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The environment variables of a program."""
        mine = {"RIVALS_URL": self.url, "RIVALS_MARK": str(self.counter), "PYTHONPATH": str(_BENCHMARKS)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return {**kept, **mine, **settings}

    def command(self, contender: Contender) -> list[str]:
        """The command of its worker."""
        program, *arguments = contender.command
        return [self.environments.program(contender.environment, program), *arguments]


@final
class WorkerProgram:
    """A running worker; use it as a context manager.

    Args:
        stage: where.
        contender: whose.
        tuned: whether it polls each millisecond.
    """

    def __init__(self, stage: Stage, contender: Contender, *, tuned: bool = False) -> None:
        self._stage = stage
        self._contender = contender
        self._tuned = tuned
        self._log = stage.folder / f"{contender.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def __enter__(self) -> WorkerProgram:
        mark.reset(self._stage.counter)
        self.started = time.monotonic()
        with self._log.open("wb") as log:
            # A session of its own: what it starts can be ended with it, and Ctrl-C is not for it.
            self._process = subprocess.Popen(
                self._stage.command(self._contender),
                env=self._stage.variables(self._contender.settings(tuned=self._tuned)),
                cwd=self._stage.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        # Killed, as nothing of it is needed any more: the server is wiped before the next one.
        for pid in reversed(self.pids()):
            _kill(pid)
        self._process.wait()

    def pids(self) -> list[int]:
        """Its processes."""
        assert self._process is not None
        return processes.descendants(self._process.pid)

    def log(self) -> str:
        """The end of what it said."""
        return self._log.read_text(errors="replace")[-_TAIL:]

    def seen(self) -> mark.Count:
        """What its bodies have counted so far."""
        return mark.read(self._stage.counter)

    def wait(self, count: int, patience: float) -> mark.Count:
        """Wait until so many bodies have ended.

        Raises:
            BenchError: it did not come to that within `patience` seconds, or it died.
        """
        assert self._process is not None
        until = time.monotonic() + patience
        while (seen := self.seen()).done < count:
            if self._process.poll() is not None:
                raise BenchError(f"the worker ended with {self._process.returncode}:\n{self.log()}")
            if time.monotonic() > until:
                raise BenchError(f"{seen.done} of {count} tasks after {patience:g} s:\n{self.log()}")
            time.sleep(_LOOK)
        return seen


def produce(
    stage: Stage, contender: Contender, action: str, count: int, *, patience: float, tuned: bool = False
) -> Any:
    """Run the producer of a contender, and give back its report.

    Raises:
        BenchError: it failed, or took longer than `patience` seconds.
    """
    python = stage.environments.program(contender.environment, "python")
    command = [python, "-m", "rivals.produce", contender.module, action, str(count)]
    with subprocess.Popen(
        command,
        env=stage.variables(contender.settings(tuned=tuned)),
        cwd=stage.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{action} of {count} tasks took more than {patience:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
    if process.returncode:
        raise BenchError(f"the producer ended with {process.returncode}:\n{complained[-_TAIL:]}")
    return json.loads(said.splitlines()[-1])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
