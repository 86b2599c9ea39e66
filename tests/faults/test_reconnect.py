"""Many workers that lose their server at the same moment, and find it again."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from tests.faults.rig import proxied
from tests.faults.stores import on_a_server

pytestmark = on_a_server

WORKERS = 50
DOWN = 2.0
"""Seconds for which the server is away."""
STEP = 0.05
"""Seconds within which attempts to connect count as simultaneous."""


def counts(attempts: list[float], since: float, until: float, step: float) -> list[int]:
    """How many attempts came in each step of this time, of those that are whole."""
    result = [0] * int((until - since) / step)
    for moment in attempts:
        if since <= moment < since + len(result) * step:
            result[min(int((moment - since) / step), len(result) - 1)] += 1
    return result


@pytest.mark.timeout(120)  # two hundred connections on a busy machine
async def test_fifty_workers_reconnect(rig):
    """G11: fifty workers that lose their stores come back one by one, not as a herd, and every one consumes again."""
    async with rig.opened() as direct, proxied(rig) as (proxy, through), AsyncExitStack() as stack:
        workers = []
        for _ in range(WORKERS):
            stores = await stack.enter_async_context(through.opened(command_timeout=20.0))
            options = {"concurrency": 1, "prefetch": 0, "heartbeat_interval": 5.0, "store_timeout": 20.0}
            workers.append(stores.worker(**options))
        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(worker.run)
            for worker in workers:
                await worker.wait_ready()

            async def each_consumes() -> None:
                """Enqueue tasks, one for each at a time, until every worker has had some."""
                former = {worker: worker.totals["succeeded"] for worker in workers}
                with trio.fail_after(40):
                    while any(worker.totals["succeeded"] == former[worker] for worker in workers):
                        ids = await direct.stem.enqueue_many([direct.tasks.sleeps.bind(0.1)] * WORKERS)
                        rig.ledger.accepted(ids)
                        await direct.drained()

            await each_consumes()
            links = proxy.links
            cut_at = trio.current_time()
            proxy.cut()
            await trio.sleep(DOWN)
            healed_at = trio.current_time()
            proxy.heal()
            await each_consumes()
            # Not all at the same time, half a second after the blow, and not again and again without a pause.
            busiest = max(counts(proxy.attempts, cut_at + 0.5, healed_at + 1.0, STEP))
            total = sum(cut_at <= moment < healed_at for moment in proxy.attempts)
            print(f"{links} connections, {total} attempts while down, at most {busiest} in {STEP} s")
            assert busiest < 0.75 * links
            assert total < 10 * links
            for worker in workers:
                nursery.start_soon(worker.shutdown)
        await direct.check()
