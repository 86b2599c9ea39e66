"""Leases: how long they hold, how they are renewed, and what is refused when they are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from ...outcome import Complete, MoveToDead, Release, Retry, Settlement
from ._broker_base import BrokerTests, ids
from ._make import make_envelope

if TYPE_CHECKING:
    from ...abc import Broker
    from ...envelope import Delivery, Lease

__all__ = ["LeaseTests"]

SETTLEMENTS = [Complete(), Retry(0.0), Retry(3600.0), MoveToDead("late"), Release()]
each_settlement = pytest.mark.parametrize("settlement", SETTLEMENTS, ids=repr)


def lasting(lease: Lease, seconds: float) -> Lease:
    """The same lease, to be renewed for another time."""
    return msgspec.structs.replace(lease, duration=seconds)


class LeaseTests(BrokerTests):
    """G3, G4 and G7, as far as a broker can break them."""

    async def expired(self, broker: Broker, queue: str) -> Delivery:
        """A delivery whose lease has ended, of a task that nobody has claimed since."""
        await self.put_one(broker, queue, visibility_timeout=self.short)
        delivery = await self.take_one(broker, queue)
        await self.pass_short()
        return delivery

    # --- the end of a lease -------------------------------------------------------------------------------------------

    async def test_leased_task_is_hidden(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G3: while a lease holds, nobody else is given the task."""
        await self.put_one(broker, queue, visibility_timeout=self.long)
        await self.take_one(broker, queue)
        await self.pass_short()
        await self.assert_nothing_ready(another_broker, queue)
        await self.assert_places(broker, queue, leased=1)

    async def test_task_comes_back_when_its_lease_ends(self, broker: Broker, queue: str) -> None:
        """G1: a task whose worker died is handed out again, with one strike and no attempt spent (B13)."""
        first = await self.expired(broker, queue)
        second = await self.take_one(broker, queue)
        assert second.envelope == first.envelope
        assert (second.attempt, second.deliveries, second.strikes) == (0, 2, 1)

    async def test_waiting_claim_gets_what_comes_back(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G1: a claim that waits is given a task as its lease ends, though nothing else happens in the queue."""
        before = trio.current_time()
        await self.put_one(broker, queue, visibility_timeout=self.short)
        await self.take_one(broker, queue)
        assert (await self.take_one(another_broker, queue)).strikes == 1
        assert trio.current_time() - before >= self.short * 0.9

    async def test_each_envelope_has_its_own_visibility(self, broker: Broker, queue: str) -> None:
        """Each lease lasts for the visibility timeout of its own envelope, not for one of the queue's."""
        long = await self.put_one(broker, queue, visibility_timeout=self.long)
        short = await self.put_one(broker, queue, visibility_timeout=self.short)
        deliveries = {delivery.envelope.id: delivery.lease for delivery in await self.take(broker, queue, 2)}
        assert deliveries[long.id].duration == self.long
        assert deliveries[short.id].duration == self.short
        await self.pass_short()
        assert (await self.take_one(broker, queue)).envelope == short
        await self.assert_nothing_ready(broker, queue)

    async def test_strikes(self, broker: Broker, queue: str) -> None:
        """G7: strikes count hand-outs in a row without outcome: a release keeps them, a retry clears them."""
        await self.put_one(broker, queue, visibility_timeout=self.short)
        for strikes in range(3):
            delivery = await self.take_one(broker, queue)
            assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (0, strikes + 1, strikes)
        delivery = await self.take_one(broker, queue)
        assert delivery.strikes == 3
        assert await self.settle_one(broker, delivery, Release())
        delivery = await self.take_one(broker, queue)
        assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (0, 5, 3)
        assert await self.settle_one(broker, delivery, Retry(0.0))
        delivery = await self.take_one(broker, queue)
        assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (1, 6, 0)

    # --- fencing ------------------------------------------------------------------------------------------------------

    @each_settlement
    async def test_settling_after_the_end(self, broker: Broker, queue: str, settlement: Settlement) -> None:
        """G3: a lease that has ended settles nothing, even before anybody else was given the task."""
        first = await self.expired(broker, queue)
        assert not await self.settle_one(broker, first, settlement)
        second = await self.take_one(broker, queue)
        assert (second.attempt, second.deliveries, second.strikes) == (0, 2, 1)
        assert await broker.list_dead_letters(queue) == []

    @each_settlement
    async def test_settling_what_another_holds(
        self, broker: Broker, another_broker: Broker, queue: str, settlement: Settlement
    ) -> None:
        """G3: who was late cannot settle what somebody else holds by now, who notices nothing of the attempt."""
        first = await self.expired(broker, queue)
        second = await self.take_one(another_broker, queue)
        assert await another_broker.renew([lasting(second.lease, self.long)]) == [True]
        assert not await self.settle_one(broker, first, settlement)
        await self.assert_places(broker, queue, leased=1)
        await self.complete(another_broker, second)
        await self.assert_places(broker, queue)

    @each_settlement
    async def test_settling_twice(self, broker: Broker, queue: str, settlement: Settlement) -> None:
        """G3: a second settlement by the same lease is refused, whatever the first one was."""
        await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert await self.settle_one(broker, delivery, settlement)
        stats = await broker.stats(queue)
        for late in SETTLEMENTS:
            assert not await self.settle_one(broker, delivery, late)
        assert await broker.stats(queue) == stats

    async def test_settling_twice_in_one_batch(self, broker: Broker, queue: str) -> None:
        """G3: of two settlements by one lease in a batch the first counts."""
        await self.put_one(broker, queue)
        lease = (await self.take_one(broker, queue)).lease
        assert await broker.settle([(lease, Release()), (lease, Complete())]) == [True, False]
        await self.assert_places(broker, queue, ready=1)

    async def test_settling_at_the_same_time(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G2: of several who settle by one lease at the same time exactly one does."""
        await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        answers: list[bool] = []

        async def settle(through: Broker, settlement: Settlement) -> None:
            answers.append(await self.settle_one(through, delivery, settlement))

        async with trio.open_nursery() as nursery:
            for settlement in SETTLEMENTS:
                nursery.start_soon(settle, broker, settlement)
                nursery.start_soon(settle, another_broker, settlement)
        assert answers.count(True) == 1
        stats = await broker.stats(queue)
        assert stats.leased == 0
        assert stats.unfinished + stats.dead <= 1

    async def test_settling_by_another_token(self, broker: Broker, queue: str) -> None:
        """G3: the token decides: id and receipt of a held task are not enough to settle or renew it."""
        await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        for token in (delivery.lease.token - 1, delivery.lease.token + 1, 0):
            forged = msgspec.structs.replace(delivery.lease, token=token)
            assert await broker.renew([forged]) == [False]
            assert await broker.settle([(forged, Complete())]) == [False]
        await self.complete(broker, delivery)

    async def test_settling_by_the_lease_of_another_task(self, broker: Broker, queue: str) -> None:
        """G3: a lease is good for its own task only."""
        await self.put(broker, queue, 2)
        a, b = await self.take(broker, queue, 2)
        mixed = msgspec.structs.replace(a.lease, task_id=b.lease.task_id)
        assert await broker.renew([mixed]) == [False]
        assert await broker.settle([(mixed, Complete())]) == [False]
        await self.complete(broker, a, b)

    async def test_settling_an_earlier_life(self, broker: Broker, queue: str) -> None:
        """G3: when an id was completed and published anew, the lease of its first life has no say in the second."""
        envelope = await self.put_one(broker, queue)
        first = await self.take_one(broker, queue)
        await self.complete(broker, first)
        assert await broker.publish([envelope]) == [True]
        second = await self.take_one(broker, queue)
        assert await broker.renew([first.lease]) == [False]
        assert not await self.settle_one(broker, first, Complete())
        await self.complete(broker, second)

    async def test_settling_after_a_replay(self, broker: Broker, queue: str) -> None:
        """G3: the lease under which a task was given up has no say once it is replayed."""
        await self.put_one(broker, queue)
        first = await self.take_one(broker, queue)
        assert await self.settle_one(broker, first, MoveToDead("r"))
        await broker.replay_dead_letters(queue, [first.envelope.id])
        second = await self.take_one(broker, queue)
        assert not await self.settle_one(broker, first, Complete())
        await self.complete(broker, second)

    async def test_tokens_increase(self, broker: Broker, queue: str) -> None:
        """G3: each hand-out of a task has a greater token than the one before: others may fence by it, too."""
        await self.put_one(broker, queue)
        last = -1
        for settlement in (Release(), Retry(0.0), Release(), Complete()):
            delivery = await self.take_one(broker, queue)
            assert delivery.lease.token > last
            last = delivery.lease.token
            assert await self.settle_one(broker, delivery, settlement)

    # --- renewal ------------------------------------------------------------------------------------------------------

    async def test_renewal_extends(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G4: a renewed lease holds for its duration, and completing it leaves nothing behind (B12, G14)."""
        await self.put_one(broker, queue, visibility_timeout=self.short)
        delivery = await self.take_one(broker, queue)
        assert await broker.renew([lasting(delivery.lease, self.long)]) == [True]
        await self.pass_short()
        await self.assert_nothing_ready(another_broker, queue)
        await self.complete(broker, delivery)
        await self.pass_short()
        await self.assert_nothing_ready(another_broker, queue)
        await self.assert_places(broker, queue)

    async def test_renewal_many_times(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G4: a lease that is renewed at a third of its length lasts as long as one likes, and the task runs once."""
        await self.put_one(broker, queue, visibility_timeout=self.short)
        delivery = await self.take_one(broker, queue)
        for _ in range(9):
            await self.pass_time(self.short / 3)
            assert await broker.renew([delivery.lease]) == [True]
            await self.assert_nothing_ready(another_broker, queue)
        await self.complete(broker, delivery)
        await self.assert_places(broker, queue)

    async def test_renewal_ends_too(self, broker: Broker, queue: str) -> None:
        """G1: a renewed lease ends as well, and costs one strike, not one for each renewal."""
        await self.put_one(broker, queue, visibility_timeout=self.short)
        delivery = await self.take_one(broker, queue)
        assert await broker.renew([delivery.lease] * 3) == [True] * 3
        again = await self.take_one(broker, queue)
        assert (again.attempt, again.deliveries, again.strikes) == (0, 2, 1)
        assert not await self.settle_one(broker, delivery, Complete())

    async def test_renewal_never_shortens(self, broker: Broker, queue: str) -> None:
        """G4: renewing for less than is left changes nothing."""
        await self.put_one(broker, queue, visibility_timeout=self.long)
        delivery = await self.take_one(broker, queue)
        # The lease of another task ends, in case a store looks for ended leases only when it expects one.
        ends = await self.put_one(broker, queue, visibility_timeout=self.short)
        await self.take_one(broker, queue)
        assert await broker.renew([lasting(delivery.lease, self.short)]) == [True]
        await self.pass_short()
        assert (await self.take_one(broker, queue)).envelope == ends
        await self.assert_nothing_ready(broker, queue)
        await self.complete(broker, delivery)

    async def test_renewal_after_the_end(self, broker: Broker, queue: str) -> None:
        """G4: a lease that has ended is not taken back, even before anybody else was given the task."""
        first = await self.expired(broker, queue)
        assert await broker.renew([lasting(first.lease, self.long)]) == [False]
        assert (await self.take_one(broker, queue)).strikes == 1

    async def test_renewal_of_what_another_holds(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G4: who was late cannot renew, and does not lengthen the lease of who holds the task by now."""
        first = await self.expired(broker, queue)
        second = await self.take_one(another_broker, queue)
        assert await broker.renew([lasting(first.lease, self.long)]) == [False]
        third = await self.take_one(another_broker, queue)
        assert (third.deliveries, third.strikes) == (3, 2)
        assert not await self.settle_one(another_broker, second, Complete())

    @each_settlement
    async def test_renewal_after_settling(self, broker: Broker, queue: str, settlement: Settlement) -> None:
        """G3: a lease that was used cannot be renewed."""
        await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert await self.settle_one(broker, delivery, settlement)
        stats = await broker.stats(queue)
        assert await broker.renew([delivery.lease]) == [False]
        assert await broker.stats(queue) == stats

    async def test_renewal_in_one_batch(self, broker: Broker, queue: str, other_queue: str) -> None:
        """Leases of several queues, good ones and lost ones, are renewed in one batch, each with its own answer."""
        await self.put_one(broker, queue, visibility_timeout=self.short)
        await self.put_one(broker, other_queue, visibility_timeout=self.short)
        (a,) = await self.take(broker, queue, 1)
        (b,) = await self.take(broker, other_queue, 1)
        await self.complete(broker, a)
        assert await broker.renew([a.lease, lasting(b.lease, self.long)]) == [False, True]
        await self.pass_short()
        await self.assert_nothing_ready(broker, queue, other_queue)
        await self.complete(broker, b)

    async def test_renewal_changes_no_number(self, broker: Broker, queue: str) -> None:
        """G7: a renewal is not a hand-out."""
        await self.put_one(broker, queue, visibility_timeout=self.long)
        delivery = await self.take_one(broker, queue)
        assert await broker.renew([delivery.lease]) == [True]
        assert await self.settle_one(broker, delivery, Release())
        again = await self.take_one(broker, queue)
        assert (again.attempt, again.deliveries, again.strikes) == (0, 2, 0)

    async def test_leases_of_many_end_together(self, broker: Broker, queue: str) -> None:
        """G1: a worker that dies with a hundred deliveries loses none of them."""
        envelopes = [make_envelope(queue=queue, visibility_timeout=self.short) for _ in range(100)]
        assert all(await broker.publish(envelopes))
        await self.take(broker, queue, 100)
        await self.pass_short()
        # Completed as they come: those handed out first are not to end while the others are waited for.
        seen: list[str] = []
        while len(seen) < 100:
            deliveries = await broker.claim([queue], consumer="w2", limit=100, wait=self.patience)
            seen += ids(deliveries)
            await self.complete(broker, *deliveries)
        assert sorted(seen) == sorted(ids(envelopes))
