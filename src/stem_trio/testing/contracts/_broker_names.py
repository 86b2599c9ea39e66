"""Names of queues and consumers that a careless key layout would trip over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ...ids import new_task_id
from ...outcome import MoveToDead, Release, Retry
from ._broker_base import BrokerTests, ids
from ._make import ODD_NAMES

if TYPE_CHECKING:
    from ...abc import Broker

__all__ = ["NameTests"]


class NameTests(BrokerTests):
    """Every allowed name works, and no two of them are mixed up."""

    @pytest.fixture
    def prefix(self) -> str:
        """Keeps the names of one test apart from those of others, short enough for the longest of them."""
        return new_task_id()[-12:]

    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_odd_queue_name(self, broker: Broker, prefix: str, name: str) -> None:
        """A queue of any allowed name goes through every place."""
        queue = f"{prefix}{name}"[:200]
        envelope = await self.put_one(broker, queue, delay=self.short)
        await self.assert_places(broker, queue, delayed=1)
        assert await self.settle_one(broker, await self.take_one(broker, queue), Release())
        assert await self.settle_one(broker, await self.take_one(broker, queue), Retry(0.0))
        assert [waiting.envelope for waiting in await broker.peek(queue)] == [envelope]
        delivery = await self.take_one(broker, queue)
        assert delivery.lease.queue == queue
        assert await broker.renew([delivery.lease]) == [True]
        assert await self.settle_one(broker, delivery, MoveToDead("r"))
        await self.assert_places(broker, queue, dead=1)
        assert await broker.purge_dead_letters(queue) == 1

    async def test_odd_queue_names_side_by_side(self, broker: Broker, prefix: str) -> None:
        """Queues whose names look alike do not share anything."""
        queues = [f"{prefix}{name}"[:200] for name in ODD_NAMES]
        envelopes = {queue: await self.put_one(broker, queue) for queue in queues}
        for queue in queues:
            await self.assert_places(broker, queue, ready=1)
        for queue in queues:
            assert (await self.take_one(broker, queue)).envelope == envelopes[queue]
            await self.assert_nothing_ready(broker, queue)

    async def test_odd_queue_names_in_one_claim(self, broker: Broker, prefix: str) -> None:
        """A claim may name them all at once, and their leases are settled in one batch."""
        queues = [f"{prefix}{name}"[:200] for name in ODD_NAMES]
        envelopes = [await self.put_one(broker, queue) for queue in queues]
        deliveries = await self.take(broker, queues, len(queues))
        assert sorted(ids(deliveries)) == sorted(ids(envelopes))
        await self.complete(broker, *deliveries)

    async def test_odd_consumers(self, broker: Broker, queue: str) -> None:
        """The id of a consumer may be any text."""
        await self.put(broker, queue, len(ODD_NAMES))
        for consumer in ODD_NAMES:
            (delivery,) = await broker.claim([queue], consumer=consumer, limit=1, wait=self.patience)
            assert await broker.renew([delivery.lease]) == [True]
            await self.complete(broker, delivery)
