"""The producer of the soak, and what makes sure that nothing that was accepted is forgotten."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

import trio

from stem_trio import StemClient, StemError

from .ledger import Books
from .tasks import SoakTasks

__all__ = ["audit", "drain", "produce"]

_BATCH: Final = 20
_BACKLOG: Final = 2_000
"""Tasks that wait at most: a soak is about steady load, not about a queue that grows."""
_DRAIN: Final = 120.0
_QUEUE: Final = "default"


async def produce(
    client: StemClient, tasks: SoakTasks, books: Books, random: Random, rate: float, errors: Counter[str]
) -> None:
    """Enqueue at a steady rate, for ever. What raises was not accepted, and may run all the same."""
    number = 0
    due = trio.current_time()
    while True:
        due = max(due + _BATCH / rate, trio.current_time() - 1)  # what an outage held up is not made up for
        await trio.sleep_until(due)
        calls = [tasks.choose(random, number + offset) for offset in range(_BATCH)]
        number += _BATCH
        try:
            if number % (25 * _BATCH) == 0:
                while (await client.broker.stats(_QUEUE)).ready > _BACKLOG:  # noqa: ASYNC110 - there is no event for it
                    await trio.sleep(0.2)
            books.accept(await client.enqueue_many(calls))
        except StemError as error:
            errors[type(error).__name__] += 1


async def audit(client: StemClient, books: Books, seconds: float) -> None:
    """Ask the store about work that was done and never told to be finished, while its status is kept; for ever."""
    suspects: set[str] = set()
    while True:
        await trio.sleep(seconds)
        suspects = await _look(client, books, suspects)


async def _look(client: StemClient, books: Books, suspects: set[str]) -> set[str]:
    """Confirm those that were suspects before and are still untold; the suspects of the next look."""
    books.update()
    untold = books.untold
    for task_id in suspects & untold:
        status = await client.status(task_id)
        if status is not None and status.state.terminal:
            books.confirm(task_id)
    return untold


async def drain(client: StemClient, books: Books) -> dict[str, int]:
    """Wait until nothing is left to do, and make up the books; what is left all the same, by its place."""
    stats = await client.broker.stats(_QUEUE)
    with trio.move_on_after(_DRAIN):
        while stats.unfinished:
            await trio.sleep(0.2)
            stats = await client.broker.stats(_QUEUE)
    books.update()
    await _look(client, books, books.untold)
    return {"ready": stats.ready, "delayed": stats.delayed, "leased": stats.leased, "dead": stats.dead}
