"""A worker process of the soak: ``python -m soaking.worker URL LEDGER RESULT_TTL``."""

from __future__ import annotations

import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from stem_trio import StemSignals, StoreUnavailableError, Worker
from stem_trio.stores.redis import RedisBroker, RedisResultBackend

from .ledger import FAILED, LOST_LEASE, RELEASED, SUCCEEDED, Writer
from .tasks import SoakTasks

CONCURRENCY = 50
NO_STORE = 75
"""Exit code of one that was started while its connections were cut: somebody has to start it again."""


def listen(signals: StemSignals, ledger: Writer) -> None:
    """Write down how deliveries end, as the broker has confirmed it."""

    def tell(what: str) -> Any:
        return lambda event: ledger.write(what, event.task_id, event.deliveries)

    signals.task_succeeded.connect(tell(SUCCEEDED))
    signals.task_failed.connect(tell(FAILED))
    signals.task_released.connect(tell(RELEASED))
    signals.task_lease_lost.connect(tell(LOST_LEASE))


async def work(url: str, ledger: Writer, result_ttl: float) -> None:
    """Run until a signal ends it."""
    signals = StemSignals()
    listen(signals, ledger)
    async with AsyncExitStack() as stores:
        try:
            broker = await stores.enter_async_context(RedisBroker.connect(url))
            backend = await stores.enter_async_context(RedisResultBackend.connect(url))
        except StoreUnavailableError:
            raise SystemExit(NO_STORE) from None
        tasks = SoakTasks(ledger, result_ttl)
        await Worker(broker, backend, tasks=tasks.all, concurrency=CONCURRENCY, signals=signals).run()


def main() -> None:
    """Read the command line."""
    url, ledger, result_ttl = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    trio.run(work, url, Writer(Path(ledger)), float(result_ttl))


if __name__ == "__main__":
    main()
