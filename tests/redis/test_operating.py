"""What operators do to queues on Redis, where the script itself has to look at the time."""

from __future__ import annotations

import trio

from stem_trio.stores.redis import RedisBroker
from stem_trio.testing.contracts import make_envelope


async def test_purge_after_the_end_of_a_lease(redis_url, prefix):
    """A task whose lease has ended waits, and is purged, though nobody has looked at the queue since."""
    async with RedisBroker.connect(redis_url, prefix=prefix) as broker:
        batch = [make_envelope(queue="q", visibility_timeout=seconds) for seconds in (0.1, 0.1, 1000.0)]
        await broker.publish(batch)
        assert len(await broker.claim(["q"], consumer="c", limit=3, wait=0)) == 3
        await trio.sleep(0.2)  # the lease's length: nothing tells of its end
        assert await broker.purge("q", [batch[0].id, batch[2].id]) == 1
        assert await broker.purge("q") == 1
        assert (await broker.stats("q")).leased == 1
