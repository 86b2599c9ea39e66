"""Tasks of different fates, live: ``python -m stem_trio.demo``.

One process, nothing to install beside the package: a producer, a worker, and the in-memory stores. Each task below ends
in another way, and each line of output is an event that the worker sent when it happened.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import trio

from . import (
    ExponentialJitterRetryStrategy,
    StemApp,
    StemSignals,
    TaskContext,
    TaskError,
    TaskState,
    task,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import TaskEvent
    from .handle import TaskHandle

__all__ = ["main"]


@task(name="mail.send")
async def send_mail(to: str, subject: str = "Welcome") -> str:
    """Succeeds at once."""
    await trio.sleep(0.2)
    return f"{subject!r} sent to {to}"


@task(name="rates.fetch", max_retries=3)
async def fetch_rates(context: TaskContext, currency: str) -> float:
    """Fails twice, then succeeds."""
    await trio.sleep(0.1)
    if context.attempt < 2:
        raise ConnectionError(f"the rates of {currency} are not to be had just now")
    return 1.0847


@task(name="video.encode")
async def encode_video(context: TaskContext, frames: int) -> int:
    """Takes its time, and tells how far it is."""
    for done in range(0, frames, 10):
        await context.progress(100 * done / frames)
        await trio.sleep(0.15)
    await send_mail.enqueue(context, "editor@example.com", subject="Your video is ready")
    return frames


@task(name="report.build")
def build_report(month: str) -> dict[str, int]:
    """A sync function: runs in a thread."""
    time.sleep(0.3)
    return {"pages": len(month) * 3}


@task(name="import.broken", max_retries=1)
async def import_file(path: str) -> None:
    """Fails for good: its retries are used up, and it is kept as a dead letter."""
    raise ValueError(f"{path} is no spreadsheet")


@task(name="search.slow", hard_time_limit=0.6)
async def search(words: str) -> None:  # noqa: ARG001 - the argument shows in the call
    """Never ends: cancelled at its hard time limit."""
    await trio.sleep_forever()


@task(name="backup.run")
async def back_up() -> None:
    """Runs until somebody revokes it."""
    await trio.sleep_forever()


@task(name="offer.publish")
async def publish_offer() -> None:
    """Comes too late: expires while its queue is busy elsewhere."""


_COLOURS: Final = {"green": "32", "red": "31", "yellow": "33", "blue": "34", "grey": "90"}


class _Printer:
    """Prints a line for each event."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._colours = sys.stdout.isatty()

    def line(self, name: str, what: str, colour: str, detail: str = "") -> None:
        at = f"{time.monotonic() - self._began:6.2f} s"
        if self._colours:
            what = f"\x1b[{_COLOURS[colour]}m{what:<10}\x1b[0m"
        print(f"{at}  {name:<14} {what:<10} {detail}", flush=True)

    def on(self, what: str, colour: str, detail: Callable[[TaskEvent], str] = lambda _: "") -> Callable[..., None]:
        return lambda event: self.line(event.task_name, what, colour, detail(event))


def _signals(printer: _Printer) -> StemSignals:
    def error(event: TaskEvent) -> str:
        failure = getattr(event, "error", None)
        return f"{failure.type.rpartition('.')[2]}: {failure.message}" if isinstance(failure, TaskError) else ""

    signals = StemSignals()
    signals.after_task_publish.connect(
        lambda event: printer.line(
            event.envelope.name, "enqueued", "grey", f"delay {event.delay:g} s" if event.delay else ""
        )
    )
    signals.task_prerun.connect(printer.on("started", "blue", lambda event: f"attempt {event.attempt}"))
    signals.task_retry.connect(
        lambda event: printer.line(
            event.task_name, "retrying", "yellow", f"in {event.delay:.2f} s, after {error(event)}"
        )
    )
    signals.task_succeeded.connect(printer.on("succeeded", "green"))
    signals.task_failed.connect(
        lambda event: printer.line(event.task_name, "failed", "red", f"{event.reason}: {error(event)}")
    )
    signals.task_revoked.connect(lambda event: printer.line(event.task_name, "revoked", "red", event.reason or ""))
    signals.task_expired.connect(printer.on("expired", "red"))
    return signals


async def main() -> None:
    """Enqueue the tasks, watch them, and print how each ended."""
    printer = _Printer()
    app = StemApp.in_memory(
        tasks=[send_mail, fetch_rates, encode_video, build_report, import_file, search, back_up, publish_offer],
        signals=_signals(printer),
        retry_strategy=ExponentialJitterRetryStrategy(base=0.3, max=1.0),
    )
    async with app:
        handles: list[TaskHandle[Any]] = [
            await send_mail.enqueue(app, "ada@example.com"),
            await fetch_rates.enqueue(app, "EUR"),
            await encode_video.enqueue(app, frames=60),
            await build_report.enqueue(app, "2026-10"),
            await import_file.enqueue(app, "numbers.xls"),
            await search.enqueue(app, "everything"),
            await send_mail.with_options(delay=1.0, priority=9).enqueue(app, "grace@example.com", "Later"),
        ]
        backup = await back_up.enqueue(app)
        # Nobody claims from this queue until after the offer has expired.
        offer = await publish_offer.with_options(queue="offers", expires=0.5).enqueue(app)
        handles += [backup, offer]

        await trio.sleep(0.5)
        status = await handles[2].status()
        if status.progress is not None:
            printer.line(status.name, "progress", "blue", f"{status.progress.percent:.0f} %, read from its status")
        await backup.revoke(reason="no longer needed")
        await trio.sleep(0.5)
        await _serve_offers(app)
        await app.drain()

        print("\nHow each of them ended:")
        for handle in handles:
            result = await handle.wait(timeout=10)
            print(f"  {handle.name:<14} {result.state.value:<10} {_end(result.state, result.value, result.error)}")
        dead = await app.broker.list_dead_letters("default")
        print(f"\nDead letters, kept to be replayed: {', '.join(letter.envelope.name for letter in dead)}")
        print("Runs:", ", ".join(f"{count} {name}" for name, count in app.worker.totals.items() if count))
    print("The worker has drained and stopped; nothing is left running.")


async def _serve_offers(app: StemApp) -> None:
    """A second worker of the same process, for the queue that nobody served."""
    from . import Worker  # noqa: PLC0415 - shows that one is made as simply as this

    worker = Worker(
        app.broker, app.backend, registry=app.registry, queue="offers", signals=app.stem.signals, name="second"
    )
    async with worker:
        while (await app.broker.stats("offers")).unfinished:
            await worker.wait_settled()


def _end(state: TaskState, value: object, error: TaskError | None) -> str:
    if state is TaskState.SUCCEEDED:
        return f"returned {value!r}"
    return f"{error.type.rpartition('.')[2]}: {error.message}" if error is not None else ""


if __name__ == "__main__":
    logging.getLogger("stem_trio").addHandler(logging.NullHandler())
    trio.run(main)
