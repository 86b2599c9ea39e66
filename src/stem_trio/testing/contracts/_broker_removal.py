"""Revoking and purging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...outcome import Complete, MoveToDead, Release, Retry
from ._broker_base import BrokerTests, ids

if TYPE_CHECKING:
    from ...abc import Broker

__all__ = ["RemovalTests"]


class RemovalTests(BrokerTests):
    """What is taken out of a queue before it was run."""

    # --- purge --------------------------------------------------------------------------------------------------------

    async def test_purge_deletes_what_waits(self, broker: Broker, queue: str, other_queue: str) -> None:
        """G1: a purge deletes ready and delayed tasks of its queue, no leased one, no dead letter (B11)."""
        await self.put(broker, queue, 2)
        dead, leased = await self.take(broker, queue, 2)
        assert await self.settle_one(broker, dead, MoveToDead("r"))
        await self.put(broker, queue, 2)
        await self.put(broker, queue, 2, priority=9)
        await self.put(broker, queue, 3, delay=self.long)
        await self.put_one(broker, other_queue)
        assert await broker.purge(queue) == 7
        await self.assert_places(broker, queue, leased=1, dead=1)
        await self.assert_places(broker, other_queue, ready=1)
        await self.assert_nothing_ready(broker, queue)
        assert await broker.purge(queue) == 0
        assert await self.settle_one(broker, leased, Release())
        assert (await self.take_one(broker, queue)).deliveries == 2

    async def test_purge_by_ids(self, broker: Broker, queue: str, other_queue: str) -> None:
        """A purge by ids deletes those that wait in that queue, and passes over all others."""
        a, b, c = await self.put(broker, queue, 3)
        delayed = await self.put_one(broker, queue, delay=self.long)
        other = await self.put_one(broker, other_queue)
        assert await broker.purge(queue, [b.id, delayed.id, other.id, "unknown", b.id]) == 2
        await self.assert_places(broker, queue, ready=2)
        await self.assert_places(broker, other_queue, ready=1)
        assert ids(await self.take(broker, queue, 2)) == [a.id, c.id]
        assert await broker.purge(queue, [a.id, c.id]) == 0
        await self.assert_places(broker, queue, leased=2)

    async def test_purge_leaves_dead_letters_by_id(self, broker: Broker, queue: str) -> None:
        """A purge by id does not delete a dead letter."""
        envelope = await self.put_one(broker, queue)
        assert await self.settle_one(broker, await self.take_one(broker, queue), MoveToDead("r"))
        assert await broker.purge(queue, [envelope.id]) == 0
        await self.assert_places(broker, queue, dead=1)

    async def test_purged_ids_are_free_again(self, broker: Broker, queue: str) -> None:
        """G14: nothing is kept of a purged task, not even its id."""
        ready = await self.put_one(broker, queue)
        delayed = await self.put_one(broker, queue, delay=self.long)
        assert await broker.purge(queue, [ready.id, delayed.id]) == 2
        assert await broker.publish([ready, delayed]) == [True, True]
        assert await broker.purge(queue) == 2
        assert await broker.publish([ready, delayed]) == [True, True]
        assert ids(await self.take(broker, queue, 2)) == [ready.id, delayed.id]
        await self.assert_nothing_ready(broker, queue)

    async def test_purged_delayed_task_never_comes(self, broker: Broker, queue: str) -> None:
        """G2: a delayed task that was purged does not come back when it would have been due."""
        purged = await self.put_one(broker, queue, delay=self.short)
        await self.put_one(broker, queue, delay=self.short)
        assert await broker.purge(queue, [purged.id]) == 1
        await self.pass_short()
        assert (await self.take_one(broker, queue)).envelope != purged
        await self.assert_nothing_ready(broker, queue)

    async def test_purge_of_what_came_back(self, broker: Broker, queue: str) -> None:
        """Tasks that came back from a worker wait like all others, and are purged like them."""
        await self.put(broker, queue, 4)
        for number, delivery in enumerate(await self.take(broker, queue, 4)):
            assert await self.settle_one(broker, delivery, Release() if number % 2 else Retry(0.0))
        shown = await broker.peek(queue)
        assert len(shown) == 4
        assert await broker.purge(queue, [waiting.envelope.id for waiting in shown[1:3]]) == 2
        assert sorted(ids(await self.take(broker, queue, 2))) == sorted([shown[0].envelope.id, shown[3].envelope.id])
        await self.assert_nothing_ready(broker, queue)

    # --- revoke -------------------------------------------------------------------------------------------------------

    async def test_revoked_ready_task(self, broker: Broker, queue: str) -> None:
        """G8: a revoked task is still handed out, marked with the reason, so that a worker can write its end."""
        envelope = await self.put_one(broker, queue)
        other = await self.put_one(broker, queue)
        assert await broker.revoke(queue, [envelope.id], reason="not needed: 👋") == [True]
        await self.assert_places(broker, queue, ready=2)
        marks = {delivery.envelope.id: delivery.revoked for delivery in await self.take(broker, queue, 2)}
        assert marks == {envelope.id: "not needed: 👋", other.id: None}

    async def test_revoked_delayed_task(self, broker: Broker, queue: str) -> None:
        """G8: a delayed task that is revoked becomes ready at once, and only once."""
        envelope = await self.put_one(broker, queue, delay=self.short)
        await self.put_one(broker, queue, delay=self.long)
        assert await broker.revoke(queue, [envelope.id]) == [True]
        await self.assert_places(broker, queue, ready=1, delayed=1)
        delivery = await self.take_one(broker, queue)
        assert (delivery.envelope, delivery.attempt, delivery.deliveries) == (envelope, 0, 1)
        assert delivery.revoked == "", "no reason is an empty one, which is not the same as no mark"
        await self.complete(broker, delivery)
        await self.pass_short()
        await self.assert_nothing_ready(broker, queue)

    async def test_revoked_leased_task_that_ends(self, broker: Broker, queue: str) -> None:
        """A leased task that is revoked stays with its worker, who settles it as ever."""
        envelope = await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert await broker.revoke(queue, [envelope.id], reason="r") == [True]
        await self.assert_nothing_ready(broker, queue)
        await self.assert_places(broker, queue, leased=1)
        assert await broker.renew([delivery.lease]) == [True]
        await self.complete(broker, delivery)
        await self.assert_places(broker, queue)

    async def test_revoked_leased_task_that_comes_back(self, broker: Broker, queue: str) -> None:
        """G8: a leased task that is revoked is marked if it comes back, and then does not wait for a delay."""
        envelope = await self.put_one(broker, queue, visibility_timeout=self.long)
        delivery = await self.take_one(broker, queue)
        assert await broker.revoke(queue, [envelope.id], reason="r") == [True]
        assert await self.settle_one(broker, delivery, Release())
        delivery = await self.take_one(broker, queue)
        assert (delivery.revoked, delivery.deliveries) == ("r", 2)
        assert await self.settle_one(broker, delivery, Retry(self.long))
        delivery = await self.take_one(broker, queue)
        assert (delivery.revoked, delivery.deliveries, delivery.attempt) == ("r", 3, 1)

    async def test_revoked_leased_task_whose_worker_died(self, broker: Broker, queue: str) -> None:
        """G8: a leased task that is revoked is marked when its lease ends, too."""
        envelope = await self.put_one(broker, queue, visibility_timeout=self.short)
        await self.take_one(broker, queue)
        assert await broker.revoke(queue, [envelope.id], reason="r") == [True]
        delivery = await self.take_one(broker, queue)
        assert (delivery.revoked, delivery.deliveries, delivery.strikes) == ("r", 2, 1)

    async def test_revoking_what_is_not_there(self, broker: Broker, queue: str, other_queue: str) -> None:
        """Unknown, finished and dead tasks, and those of other queues, cannot be revoked; the others can."""
        dead, done, held = await self.put(broker, queue, 3)
        for delivery in await self.take(broker, queue, 2):
            settlement = MoveToDead("r") if delivery.envelope == dead else Complete()
            assert await self.settle_one(broker, delivery, settlement)
        other = await self.put_one(broker, other_queue)
        answers = await broker.revoke(queue, ["unknown", done.id, dead.id, other.id, held.id], reason="r")
        assert answers == [False, False, False, False, True]
        assert (await self.take_one(broker, other_queue)).revoked is None
        assert (await self.take_one(broker, queue)).revoked == "r"

    async def test_revocations(self, broker: Broker, queue: str, other_queue: str) -> None:
        """G8: a mark is seen wherever the task is, until it is over; what is not held, or elsewhere, has none."""
        ready, delayed, leased = [
            *await self.put(broker, queue, 1),
            await self.put_one(broker, queue, delay=self.long),
            await self.put_one(broker, queue, priority=9),
        ]
        delivery = await self.take_one(broker, queue)
        assert delivery.envelope == leased
        unmarked = await self.put_one(broker, queue)
        marked = [ready.id, delayed.id, leased.id]
        assert await broker.revocations(queue, marked) == [None] * 3
        assert await broker.revoke(queue, marked, reason="why: 👋") == [True] * 3
        assert await broker.revoke(queue, [ready.id], reason="") == [True]
        asked = [leased.id, unmarked.id, ready.id, "unknown", delayed.id]
        assert await broker.revocations(queue, asked) == ["why: 👋", None, "", None, "why: 👋"]
        assert await broker.revocations(other_queue, marked) == [None] * 3
        assert await broker.revocations(queue, []) == []
        await self.complete(broker, delivery)
        assert await broker.revocations(queue, [leased.id]) == [None]

    async def test_replay_of_a_revoked_task(self, broker: Broker, queue: str) -> None:
        """A task that was revoked, and given up all the same, runs again when it is replayed."""
        envelope = await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert await broker.revoke(queue, [envelope.id], reason="r") == [True]
        assert await self.settle_one(broker, delivery, MoveToDead("r"))
        await broker.replay_dead_letters(queue, [envelope.id])
        assert (await self.take_one(broker, queue)).revoked is None

    async def test_revoking_twice(self, broker: Broker, queue: str) -> None:
        """Revoking again is safe."""
        envelope = await self.put_one(broker, queue, delay=self.long)
        assert await broker.revoke(queue, [envelope.id], reason="r") == [True]
        assert await broker.revoke(queue, [envelope.id, envelope.id], reason="r") == [True, True]
        await self.assert_places(broker, queue, ready=1)
        assert (await self.take_one(broker, queue)).revoked == "r"
        await self.assert_nothing_ready(broker, queue)
