"""Signals of the operating system: real processes, real signals, and lines of output to wait for."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stem_trio import InvalidOptionError, WorkerLifecycleConfig
from stem_trio.worker import lifecycle
from stem_trio.worker.lifecycle import Shutdown, watch_signals
from tests.lifecycle.support import Probe

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these signals are POSIX's")

PROGRAM = Path(__file__).with_name("signals_program.py")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
GIVEN_BACK = "state queued ready 1 leased 0"
DONE = "state succeeded ready 0 leased 0"


class Program:
    """The running program."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, line: str) -> None:
        """Read up to this line."""
        for text in self.process.stdout:
            self.lines.append(text.rstrip())
            if self.lines[-1] == line:
                return
        raise AssertionError(f"no line {line!r} in {self.lines}")

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def say(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Read to the end; the exit status."""
        self.lines += [line.rstrip() for line in self.process.stdout]
        return self.process.wait()


@contextmanager
def program(host="alone", install="default", kind="reads"):
    """The program, with its handler at work."""
    with subprocess.Popen(
        [sys.executable, PROGRAM, host, install, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if kind == "stubborn" else None,
        text=True,
    ) as process:
        try:
            running = Program(process)
            running.wait_for("started")
            yield running
        finally:
            process.kill()


def test_first_sigterm_drains():
    """G10: SIGTERM lets the handler end undisturbed, and the program with it, in good order."""
    with program() as running:
        running.kill(signal.SIGTERM)
        running.wait_for("stopping warm")
        running.say("go on")
        assert running.end() == 0
        assert running.lines == [
            "ready SIGTERM,SIGQUIT",
            "started",
            "stopping warm",
            "finished",
            "stopped warm",
            DONE,
            "handlers none",
        ]


def test_first_sigint_asks():
    """G10: SIGINT asks handlers to end, and waits for them."""
    with program() as running:
        running.kill(signal.SIGINT)
        running.wait_for("asked")
        running.say("go on")
        assert running.end() == 0
        assert "stopping soft" in running.lines
        assert running.lines[-4:] == ["finished", "stopped soft", DONE, "handlers none"]


def test_first_sigquit_cancels():
    """G10: SIGQUIT cancels handlers and gives their tasks back."""
    with program() as running:
        running.kill(signal.SIGQUIT)
        assert running.end() == 0
        assert "cancelled" in running.lines
        assert running.lines[-3:] == ["stopped hard", GIVEN_BACK, "handlers none"]


@pytest.mark.parametrize("first", SIGNALS[:2], ids=lambda number: number.name)
@pytest.mark.parametrize("second", SIGNALS, ids=lambda number: number.name)
def test_second_signal_cancels(first, second):
    """G10: a second signal, whichever, cancels handlers and gives their tasks back."""
    with program() as running:
        running.kill(first)
        running.wait_for("stopping warm" if first == signal.SIGTERM else "asked")
        running.kill(second)
        assert running.end() == 0
        assert "cancelled" in running.lines
        assert "finished" not in running.lines
        assert running.lines[-3:] == ["stopped hard", GIVEN_BACK, "handlers none"]


@pytest.mark.parametrize("third", SIGNALS, ids=lambda number: number.name)
def test_third_signal_ends_the_process(third):
    """G10: a third signal ends the process at once, by that signal, whatever handlers do."""
    with program(kind="stubborn") as running:
        running.kill(signal.SIGTERM)
        running.wait_for("stopping warm")
        running.kill(signal.SIGINT)
        running.wait_for("cancelled")
        running.kill(third)
        assert running.end() == -third
        assert "stopped hard" not in running.lines


@pytest.mark.parametrize("host", ["alone", "beside"])
def test_awaited_in_the_main_task(host):
    """A worker that the main task awaits has the program's signals, also beside tasks that it started."""
    with program(host) as running:
        assert running.lines[0] == "ready SIGTERM,SIGQUIT"
        running.kill(signal.SIGQUIT)
        assert running.end() == 0
        assert running.lines[-2:] == [GIVEN_BACK, "handlers none"]


@pytest.mark.parametrize("host", ["start", "start_soon", "block", "thread"])
def test_embedded_worker_leaves_signals_alone(host):
    """A worker in somebody else's nursery, or thread, installs nothing: SIGTERM does what it always does."""
    with program(host) as running:
        assert running.lines[0] == "ready none"
        running.kill(signal.SIGTERM)
        assert running.end() == -signal.SIGTERM


def test_embedded_worker_and_ctrl_c():
    """A Ctrl-C that ends the host's nursery is a hard shutdown for the worker in it."""
    with program("start") as running:
        running.kill(signal.SIGINT)
        assert running.end() != 0
        assert running.lines[-2:] == [GIVEN_BACK, "handlers none"]


@pytest.mark.parametrize("host", ["start", "start_soon"])
def test_embedded_worker_that_is_told_to(host):
    """`install_signal_handlers=True` installs them in any case."""
    with program(host, "yes") as running:
        assert running.lines[0] == "ready SIGTERM,SIGQUIT"
        running.kill(signal.SIGQUIT)
        assert running.end() == 0
        assert running.lines[-3:] == ["stopped hard", GIVEN_BACK, "handlers none"]


def test_lone_worker_that_is_told_not_to():
    """`install_signal_handlers=False` installs none in any case."""
    with program("alone", "no") as running:
        assert running.lines[0] == "ready none"
        running.kill(signal.SIGTERM)
        assert running.end() == -signal.SIGTERM


# --- in this process ------------------------------------------------------------------------------------------------


async def test_signals_need_the_main_thread(world):
    """G15: to ask for signal handlers in another thread is refused by name, and ends the worker before it begins."""
    worker = world.worker(lifecycle=WorkerLifecycleConfig(install_signal_handlers=True))

    def elsewhere() -> str:
        with pytest.raises(InvalidOptionError, match="install_signal_handlers=True: needs the main thread"):
            trio.run(worker.run)
        return worker.state.value

    assert await trio.to_thread.run_sync(elsewhere) == "stopped"
    await worker.shutdown()
    assert world.faults.trace == []


async def test_signals_and_calls_count_apart(world, autojump_clock):
    """The first signal never ends the process, also when the program has asked for a hard shutdown itself."""
    probe = Probe(cleanup=5)
    job = probe.task()
    worker = world.worker(job, lifecycle=WorkerLifecycleConfig(install_signal_handlers=True))
    async with trio.open_nursery() as nursery:
        await worker.start(nursery)
        await world.enqueue(job)
        await wait_all_tasks_blocked()
        nursery.start_soon(worker.shutdown, "hard")
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
    assert trio.current_time() == 5
    assert await world.places() == (1, 0, 0, 0)


@pytest.fixture
def killed(monkeypatch):
    """Signals that the process has sent to itself, with the handler that was in force then, instead of ending it."""
    sent = []
    monkeypatch.setattr(lifecycle.os, "kill", lambda pid, number: sent.append((pid, number, signal.getsignal(number))))
    return sent


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
async def test_steps_of_signals(killed, caplog, number):
    """Each signal is one step, and the log says which."""
    caplog.set_level(logging.INFO)
    modes = []
    shutdown = Shutdown(WorkerLifecycleConfig(), lambda: modes.append(shutdown.mode.name))
    former = signal.getsignal(number)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, shutdown)
        for _ in range(3):
            assert killed == []
            signal.raise_signal(number)
            await wait_all_tasks_blocked()
        assert killed == [(os.getpid(), number, signal.SIG_DFL)]
        nursery.cancel_scope.cancel()
    assert signal.getsignal(number) is former
    first = {signal.SIGTERM: "WARM", signal.SIGINT: "SOFT", signal.SIGQUIT: "HARD"}[number]
    assert modes == ([first] if first == "HARD" else [first, "HARD"])
    assert [record.message.split(":")[0] for record in caplog.records] == [
        number.name,
        f"{number.name} again",
        f"{number.name} once more",
    ]
