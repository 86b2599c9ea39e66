"""The demo's worker, a process of its own: ``python -m stem_trio.demo.worker FILE NAME QUEUE...``.

It writes a line of JSON to its output for each thing that happens, and ends when its input does: at the wish of whoever
started it, or because that has died.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from .. import SqliteBroker, SqliteResultBackend, StemSignals, TaskError, Worker, WorkerLifecycleConfig
from .printer import Line
from .tasks import RETRIES, TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..events import PublishEvent, TaskEvent, TaskFailed, TaskPrerun, TaskRetry, TaskRevoked

__all__ = ["main"]

_STDIN: Final = 0
_STDOUT: Final = 1


def _tell(name: str, what: str, detail: str = "") -> None:
    # Written at once, without a buffer that a kill would take along. Nobody may be left to read it.
    with suppress(BrokenPipeError):
        os.write(_STDOUT, msgspec.json.encode(Line(name, what, detail)) + b"\n")


def _error(error: TaskError) -> str:
    return f"{error.type.rpartition('.')[2]}: {error.message}"


def _started(event: TaskPrerun) -> None:
    again = ", taken up again" if event.deliveries > event.attempt + 1 else ""
    _tell(event.task_name, "started", f"attempt {event.attempt}{again}")


def _retrying(event: TaskRetry) -> None:
    _tell(event.task_name, "retrying", f"in {event.delay:.2f} s, after {_error(event.error)}")


def _failed(event: TaskFailed) -> None:
    _tell(event.task_name, "failed", f"{event.reason}: {_error(event.error)}")


def _revoked(event: TaskRevoked) -> None:
    _tell(event.task_name, "revoked", event.reason or "")


def _succeeded(event: TaskEvent) -> None:
    _tell(event.task_name, "succeeded")


def _expired(event: TaskEvent) -> None:
    _tell(event.task_name, "expired")


def _enqueued(event: PublishEvent) -> None:
    _tell(event.envelope.name, "enqueued", "by a task")


def _signals() -> StemSignals:
    signals = StemSignals()
    signals.after_task_publish.connect(_enqueued)
    signals.task_prerun.connect(_started)
    signals.task_retry.connect(_retrying)
    signals.task_succeeded.connect(_succeeded)
    signals.task_failed.connect(_failed)
    signals.task_revoked.connect(_revoked)
    signals.task_expired.connect(_expired)
    return signals


async def main(file: str, name: str, queues: Sequence[str]) -> None:
    """Work until the input ends, then finish what runs, which takes some two seconds at most.

    Cancellation: the worker shuts down hard.

    Raises:
        StoreError: the file cannot be used.
    """
    async with SqliteBroker.open(file) as broker, SqliteResultBackend.open(file) as backend:
        worker = Worker(
            broker,
            backend,
            tasks=TASKS,
            queues=queues,
            name=name,
            signals=_signals(),
            retry_strategy=RETRIES,
            lifecycle=WorkerLifecycleConfig(soft_grace_period=1, force_shutdown_after=1),
        )
        async with worker:
            _tell("", "ready", worker.id)
            # Read without a buffer, whose lock a thread that is abandoned would hold at the end of the process.
            await trio.to_thread.run_sync(os.read, _STDIN, 1, abandon_on_cancel=True)


if __name__ == "__main__":
    logging.getLogger("stem_trio").addHandler(logging.NullHandler())
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])
