"""What the tests of a broker share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ...envelope import Delivery, Envelope
from ...outcome import Complete, Settlement
from ._base import StoreContract
from ._make import make_envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...abc import Broker

__all__ = ["BrokerTests", "ids"]


class BrokerTests(StoreContract):
    """Fixtures and the steps that most tests are made of."""

    @pytest.fixture
    def another_broker(self, broker: Broker) -> Broker:
        """A second connection to the same store, as another process would have. Default: the same object."""
        return broker

    async def put(
        self, broker: Broker, queue: str, count: int = 1, *, delay: float = 0.0, **fields: Any
    ) -> list[Envelope]:
        """Publish tasks that are new to the broker."""
        envelopes = [make_envelope(queue=queue, **fields) for _ in range(count)]
        assert await broker.publish(envelopes, delay=delay) == [True] * count
        return envelopes

    async def put_one(self, broker: Broker, queue: str, *, delay: float = 0.0, **fields: Any) -> Envelope:
        """Publish one task that is new to the broker."""
        (envelope,) = await self.put(broker, queue, delay=delay, **fields)
        return envelope

    async def take(self, broker: Broker, queues: str | Sequence[str], count: int) -> list[Delivery]:
        """Claim as many as `count`, which must come; a broker may hand them out in several portions."""
        names = [queues] if isinstance(queues, str) else queues
        taken: list[Delivery] = []
        while len(taken) < count:
            more = await broker.claim(names, consumer="w1", limit=count - len(taken), wait=self.patience)
            assert more, f"only {len(taken)} of {count} tasks were handed out"
            taken += more
        assert len(taken) == count, "more tasks were handed out than asked for"
        return taken

    async def take_one(self, broker: Broker, queue: str) -> Delivery:
        """Claim one, which must come."""
        (delivery,) = await self.take(broker, queue, 1)
        return delivery

    async def assert_nothing_ready(self, broker: Broker, *queues: str) -> None:
        """Nothing can be claimed."""
        assert await broker.claim(queues, consumer="w9", limit=10, wait=0) == []

    async def assert_places(
        self, broker: Broker, queue: str, *, ready: int = 0, delayed: int = 0, leased: int = 0, dead: int = 0
    ) -> None:
        """That many tasks are in these places, none in the others."""
        stats = await broker.stats(queue)
        assert (stats.ready, stats.delayed, stats.leased, stats.dead) == (ready, delayed, leased, dead)

    async def settle_one(self, broker: Broker, delivery: Delivery, settlement: Settlement) -> bool:
        """Settle one delivery; whether it was done."""
        (done,) = await broker.settle([(delivery.lease, settlement)])
        return done

    async def complete(self, broker: Broker, *deliveries: Delivery) -> None:
        """End deliveries whose leases must be good."""
        done = await broker.settle([(delivery.lease, Complete()) for delivery in deliveries])
        assert done == [True] * len(deliveries)


def ids(items: Sequence[Envelope] | Sequence[Delivery]) -> list[str]:
    """Task ids, in order."""
    return [(item.envelope if isinstance(item, Delivery) else item).id for item in items]
