"""In which order tasks are handed out, and how they are looked at before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...outcome import Retry
from ._broker_base import BrokerTests, ids
from ._make import make_envelope

if TYPE_CHECKING:
    from ...abc import Broker

__all__ = ["OrderTests"]


class OrderTests(BrokerTests):
    """Priority first, then first come, first served; queues take turns."""

    async def test_first_come_first_served(self, broker: Broker, queue: str) -> None:
        """Tasks of one priority are handed out in the order in which they were published, batch or not."""
        envelopes = await self.put(broker, queue, 5)
        envelopes += [await self.put_one(broker, queue) for _ in range(5)]
        assert ids([await self.take_one(broker, queue) for _ in range(3)]) == ids(envelopes[:3])
        assert ids(await self.take(broker, queue, 7)) == ids(envelopes[3:])

    async def test_higher_priority_first(self, broker: Broker, queue: str) -> None:
        """G9: a task of higher priority is handed out first, though it was published last (B15)."""
        batch = [make_envelope(queue=queue, priority=priority) for priority in (0, 5, 9, 1, 5, 0, 8)]
        assert all(await broker.publish(batch))
        order = [batch[number].id for number in (2, 6, 1, 4, 3, 0, 5)]
        assert ids(await self.take(broker, queue, 4)) == order[:4]
        assert ids([await self.take_one(broker, queue) for _ in range(3)]) == order[4:]

    async def test_late_high_priority_starts_next(self, broker: Broker, queue: str) -> None:
        """G9: of a hundred low ones and then a high one, the high one is handed out next."""
        low = await self.put(broker, queue, 100)
        assert (await self.take_one(broker, queue)).envelope == low[0]
        high = await self.put_one(broker, queue, priority=9)
        assert (await self.take_one(broker, queue)).envelope == high
        assert (await self.take_one(broker, queue)).envelope == low[1]

    async def test_priority_orders_between_queues(self, broker: Broker, queue: str, other_queue: str) -> None:
        """G9: a claim on several queues is given the highest priority of all of them first."""
        low = await self.put_one(broker, queue, priority=1)
        high = await self.put_one(broker, other_queue, priority=8)
        middle = await self.put_one(broker, queue, priority=4)
        seen = [(await self.take(broker, [queue, other_queue], 1))[0].envelope for _ in range(3)]
        assert seen == [high, middle, low]

    async def test_priority_counts_after_a_delay(self, broker: Broker, queue: str) -> None:
        """G9: delayed tasks and retries keep their priority when they become ready."""
        retried = await self.put_one(broker, queue, priority=7)
        assert await self.settle_one(broker, await self.take_one(broker, queue), Retry(self.short))
        delayed = await self.put_one(broker, queue, priority=8, delay=self.short)
        low = await self.put_one(broker, queue, priority=6)
        await self.pass_short()
        assert ids(await self.take(broker, queue, 3)) == [delayed.id, retried.id, low.id]

    async def test_no_queue_starves_another(self, broker: Broker, queue: str, other_queue: str) -> None:
        """Of two full queues each has its turns, whichever a claim names first, and however little it takes."""
        await self.put(broker, queue, 40)
        await self.put(broker, other_queue, 40)
        taken = [(await self.take(broker, [queue, other_queue], 1))[0].lease.queue for _ in range(20)]
        assert taken.count(queue) >= 5
        assert taken.count(other_queue) >= 5

    async def test_no_queue_starves_another_when_many_claim(
        self, broker: Broker, another_broker: Broker, queue: str, other_queue: str
    ) -> None:
        """Turns do not depend on whose claim it is: claims of two workers in step leave out neither queue."""
        third, fourth = f"{queue}-3", f"{queue}-4"
        for name in (queue, other_queue, third, fourth):
            await self.put(broker, name, 20)
        taken = []
        for _ in range(10):
            taken += [delivery.lease.queue for delivery in await self.take(broker, [queue, other_queue], 1)]
            taken += [delivery.lease.queue for delivery in await self.take(another_broker, [third, fourth], 1)]
        for name in (queue, other_queue, third, fourth):
            assert taken.count(name) >= 2

    async def test_a_short_queue_does_not_hold_up_a_long_one(
        self, broker: Broker, queue: str, other_queue: str
    ) -> None:
        """A claim on several queues takes what there is, where one of them has less than its share or nothing."""
        await self.put(broker, queue, 1)
        await self.put(broker, other_queue, 9)
        deliveries = await self.take(broker, [queue, other_queue, f"{queue}-empty"], 10)
        assert sum(delivery.lease.queue == queue for delivery in deliveries) == 1

    async def test_a_queue_named_twice_is_one(self, broker: Broker, queue: str) -> None:
        """Naming a queue twice in a claim does not hand its tasks out twice, nor disturb the wait for them."""
        assert await broker.claim([queue, queue], consumer="w1", limit=5, wait=self.pause) == []
        envelopes = await self.put(broker, queue, 3)
        assert sorted(ids(await self.take(broker, [queue, queue], 3))) == sorted(ids(envelopes))
        await self.assert_places(broker, queue, leased=3)

    # --- peek ---------------------------------------------------------------------------------------------------------

    async def test_peek_shows_the_order_of_claims(self, broker: Broker, queue: str) -> None:
        """Ready tasks are shown as they would be claimed, then the delayed ones by due time; none is touched."""
        later = await self.put_one(broker, queue, delay=self.long * 2, priority=9)
        sooner = await self.put_one(broker, queue, delay=self.long)
        low = await self.put(broker, queue, 2)
        high = await self.put_one(broker, queue, priority=3)
        shown = await broker.peek(queue)
        assert [waiting.envelope for waiting in shown] == [high, *low, sooner, later]
        assert [waiting.place for waiting in shown] == ["ready"] * 3 + ["delayed"] * 2
        assert [waiting.due_in for waiting in shown[:3]] == [0.0] * 3
        assert 0 < shown[3].due_in <= self.long * 1.01 < shown[4].due_in <= self.long * 2.01
        await self.assert_places(broker, queue, ready=3, delayed=2)
        deliveries = await self.take(broker, queue, 3)
        assert ids(deliveries) == ids([high, *low])
        assert {delivery.deliveries for delivery in deliveries} == {1}

    async def test_peek_in_pages(self, broker: Broker, queue: str) -> None:
        """Pages of any size together show each waiting task once, in the same order."""
        await self.put(broker, queue, 5)
        await self.put(broker, queue, 3, priority=2)
        await self.put(broker, queue, 4, delay=self.long)
        whole = [waiting.envelope for waiting in await broker.peek(queue)]
        assert len(whole) == 12
        for size in (1, 3, 5, 12, 20):
            pages = [await broker.peek(queue, limit=size, offset=offset) for offset in range(0, 12, size)]
            assert all(len(page) <= size for page in pages)
            assert [waiting.envelope for page in pages for waiting in page] == whole
        assert await broker.peek(queue, limit=5, offset=12) == []
        assert await broker.peek(queue, limit=5, offset=1000) == []

    async def test_peek_shows_only_what_waits(self, broker: Broker, queue: str) -> None:
        """A leased task is not shown; one that came back is, with its numbers."""
        await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert await broker.peek(queue) == []
        assert await self.settle_one(broker, delivery, Retry(self.long))
        (waiting,) = await broker.peek(queue)
        assert (waiting.place, waiting.attempt, waiting.deliveries) == ("delayed", 1, 1)
