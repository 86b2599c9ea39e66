"""The tasks of the demo, each of which ends in another way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

from .. import ExponentialJitterRetryStrategy, TaskContext, task

if TYPE_CHECKING:
    from ..task import TaskSource

__all__ = [
    "OFFERS",
    "RETRIES",
    "TASKS",
    "back_up",
    "build_report",
    "encode_video",
    "fetch_rates",
    "import_file",
    "pack_archive",
    "publish_offer",
    "search",
    "send_mail",
]

OFFERS: Final = "offers"
"""A queue that the first worker does not claim from."""
RETRIES: Final = ExponentialJitterRetryStrategy(base=0.3, max=1.0)


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
async def encode_video(context: TaskContext, frames: int) -> str:
    """Takes its time, tells how far it is, and enqueues a mail, whose id it returns."""
    for done in range(0, frames, 10):
        await context.progress(100 * done / frames)
        await trio.sleep(0.15)
    mail = await send_mail.enqueue(context, "editor@example.com", subject="Your video is ready")
    return mail.id


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


@task(name="offer.publish", queue=OFFERS)
async def publish_offer() -> None:
    """Comes too late: expires while nobody serves its queue."""


@task(name="archive.pack", visibility_timeout=2.0)
async def pack_archive(context: TaskContext, boxes: int) -> int:
    """Long enough for its worker to be killed meanwhile. Its lease lasts two seconds, and a worker renews it."""
    for done in range(boxes):
        await context.progress(100 * done / boxes)
        await trio.sleep(0.3)
    return boxes


TASKS: Final[list[TaskSource]] = [
    send_mail,
    fetch_rates,
    encode_video,
    build_report,
    import_file,
    search,
    back_up,
    publish_offer,
    pack_archive,
]
