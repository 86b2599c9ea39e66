"""The course of the demo: a worker at its work, its death, and the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from .. import SqliteBroker, SqliteResultBackend, StemClient, StemSignals, TaskHandle, TaskState
from .ledger import Ledger
from .printer import Line, Printer
from .process import WorkerProcess
from .tasks import (
    OFFERS,
    TASKS,
    back_up,
    build_report,
    encode_video,
    fetch_rates,
    import_file,
    pack_archive,
    publish_offer,
    search,
    send_mail,
)

if TYPE_CHECKING:
    from ..events import PublishEvent

__all__ = ["show"]

_LONGEST: Final = 20.0
"""Seconds that anything here may take."""
_LOOK: Final = 0.05
"""Seconds between two looks at a status."""


async def show(file: str) -> bool:
    """Run the demo on a SQLite file; True if everything was as it should be.

    Cancellation: worker processes are killed and reaped; the file stays as it is.

    Raises:
        StemError: the file cannot be used.
        TooSlowError: a process is not ready, or a task not where it should be, in time.
    """
    printer = Printer()
    ledger = Ledger()
    signals = StemSignals()
    signals.after_task_publish.connect(lambda event: printer.event("producer", _published(event)))
    client = StemClient(SqliteBroker.open(file), SqliteResultBackend.open(file), tasks=TASKS, signals=signals)
    print(f"Tasks are kept in {file}. Producer and worker are processes of their own.")
    async with client, trio.open_nursery() as nursery:
        printer.heading("A worker, and tasks of different fates:")
        first: WorkerProcess = await nursery.start(WorkerProcess.run, file, "worker 1", ["default"], printer)
        await _fates(client, printer, ledger)

        printer.heading("The worker is killed in the middle of a task:")
        archive = await _kill_in_the_middle(client, first, printer, ledger)

        printer.heading("Another worker:")
        second: WorkerProcess = await nursery.start(WorkerProcess.run, file, "worker 2", ["default", OFFERS], printer)
        await _wait_for_all(client, ledger)
        taken_up = await archive.status()
        ledger.check(taken_up.worker == second.id, f"{archive.name} was not ended by the second worker")
        ledger.check(taken_up.deliveries > 1, f"{archive.name} was handed out only once")
        await second.stop()
        ledger.check(second.returncode == 0, f"the second worker has ended with {second.returncode}")
        await ledger.close(client)
    ledger.show()
    return ledger.is_good


async def _fates(client: StemClient, printer: Printer, ledger: Ledger) -> None:
    """Enqueue a task of each fate, and wait until the first worker is done with those that it serves."""
    rates = await fetch_rates.enqueue(client, "EUR")
    video = await encode_video.enqueue(client, frames=60)
    backup = await back_up.enqueue(client)
    done: list[TaskHandle[Any]] = [
        rates,
        video,
        await send_mail.enqueue(client, "ada@example.com"),
        await build_report.enqueue(client, "2026-10"),
        await send_mail.with_options(delay=1.0, priority=9).enqueue(client, "grace@example.com", "Later"),
    ]
    failing = [await import_file.enqueue(client, "numbers.xls"), await search.enqueue(client, "everything")]
    # Nobody claims from its queue until after it has expired.
    offer = await publish_offer.with_options(expires=0.5).enqueue(client)
    for handle in done:
        ledger.enqueued(handle)
    for handle in failing:
        ledger.enqueued(handle, TaskState.FAILED)
    ledger.enqueued(backup, TaskState.REVOKED)
    ledger.enqueued(offer, TaskState.EXPIRED)

    await _progress(video, 10, printer)
    await backup.revoke(reason="no longer needed")
    ledger.add(send_mail.name, await video.result(timeout=_LONGEST))
    for handle in (*done, *failing, backup):
        await handle.wait(timeout=_LONGEST)
    attempt = (await rates.status()).attempt
    ledger.check(attempt == 2, f"{rates.name} was to succeed after 2 failures, and has after {attempt}")


async def _kill_in_the_middle(
    client: StemClient, worker: WorkerProcess, printer: Printer, ledger: Ledger
) -> TaskHandle[int]:
    """Kill a worker that is at work, and enqueue more while there is none."""
    archive = await pack_archive.enqueue(client, boxes=5)
    ledger.enqueued(archive)
    await _progress(archive, 20, printer)
    printer.say(
        f"kill -9 {worker.pid}: worker 1 is killed, and can neither finish nor give back what it holds", colour="red"
    )
    await worker.kill()
    ledger.check(worker.returncode != 0, "the first worker was to be killed, and has ended by itself")
    state = (await archive.status()).state
    ledger.check(state is TaskState.RUNNING, f"{archive.name} was to be killed in the middle, and is {state.value}")
    printer.say(
        f"worker 1 is gone (exit code {worker.returncode}); {archive.name} is still {state.value}, says its status"
    )
    for reader in ("alan", "edsger", "barbara"):
        ledger.enqueued(await send_mail.enqueue(client, f"{reader}@example.com", "Nobody is there to send this"))
    printer.say(f"{archive.name} is handed out again when its lease ends, 2 s after it was last renewed")
    return archive


async def _progress(handle: TaskHandle[Any], percent: float, printer: Printer) -> None:
    """Wait until a task has come so far."""
    with trio.fail_after(_LONGEST):
        while (progress := (await handle.status()).progress) is None or progress.percent < percent:  # noqa: ASYNC110
            await trio.sleep(_LOOK)
    printer.event("producer", Line(handle.name, "progress", f"{progress.percent:.0f} %, read from its status"))


async def _wait_for_all(client: StemClient, ledger: Ledger) -> None:
    """Wait until each task is over, or the time is; the ledger will tell which."""
    with trio.move_on_after(_LONGEST):
        for task_id in ledger.ids:
            await client.wait_for_task(task_id)


def _published(event: PublishEvent) -> Line:
    return Line(event.envelope.name, "enqueued", f"delay {event.delay:g} s" if event.delay else "")
