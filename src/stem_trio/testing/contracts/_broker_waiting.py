"""Delays, and claims that wait."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from ...outcome import MoveToDead, Release, Retry
from ._broker_base import BrokerTests, ids
from ._make import make_envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...abc import Broker
    from ...envelope import Delivery
    from ._base import Background

__all__ = ["WaitingTests"]


class WaitingTests(BrokerTests):
    """Nothing is handed out too early, and nobody waits for what is there."""

    def claiming(
        self, nursery: trio.Nursery, broker: Broker, queues: Sequence[str], *, limit: int = 1, wait: float = math.inf
    ) -> Background[list[Delivery]]:
        """A claim that waits in the background."""
        return self.start(nursery, partial(broker.claim, list(queues), consumer="w1", limit=limit, wait=wait))

    # --- delays -------------------------------------------------------------------------------------------------------

    async def test_delayed_task_is_hidden(self, broker: Broker, queue: str) -> None:
        """B14: a delayed task is not handed out before its time, and is counted as delayed, not as ready."""
        await self.put_one(broker, queue, delay=self.long)
        await self.assert_nothing_ready(broker, queue)
        await self.assert_places(broker, queue, delayed=1)

    async def test_delayed_task_comes_in_time(self, broker: Broker, queue: str) -> None:
        """G1: a waiting claim is given a delayed task when it is due, not before."""
        before = trio.current_time()
        envelope = await self.put_one(broker, queue, delay=self.short)
        delivery = await self.take_one(broker, queue)
        assert delivery.envelope == envelope
        assert trio.current_time() - before >= self.short * 0.9

    async def test_delayed_tasks_come_in_order_of_their_times(self, broker: Broker, queue: str) -> None:
        """Delayed tasks are handed out in the order in which they are due."""
        delays = [self.short * factor for factor in (2.0, 0.5, 1.5, 1.0)]
        envelopes = [await self.put_one(broker, queue, delay=delay) for delay in delays]
        seen = [(await self.take_one(broker, queue)).envelope for _ in delays]
        assert seen == [envelopes[1], envelopes[3], envelopes[2], envelopes[0]]

    async def test_delay_of_zero_is_none(self, broker: Broker, queue: str) -> None:
        """A task without a delay is ready at once."""
        await self.put_one(broker, queue, delay=0.0)
        await self.assert_places(broker, queue, ready=1)

    @pytest.mark.parametrize("skew", [-3600.0, 3600.0])
    async def test_wall_clock_of_the_client_does_not_count(
        self, broker: Broker, another_broker: Broker, queue: str, monkeypatch: pytest.MonkeyPatch, skew: float
    ) -> None:
        """G13: a client whose clock is an hour off delays and leases by the store's clock, like everybody else."""
        with monkeypatch.context() as patch:
            real, real_ns = time.time, time.time_ns
            patch.setattr(time, "time", lambda: real() + skew)
            patch.setattr(time, "time_ns", lambda: real_ns() + int(skew) * 10**9)
            later = await self.put_one(broker, queue, delay=self.long)
            soon = await self.put_one(broker, queue, delay=self.short)
            held = await self.put_one(broker, queue, visibility_timeout=self.long)
            lost = await self.put_one(broker, queue, visibility_timeout=self.short)
            assert {delivery.envelope.id for delivery in await self.take(broker, queue, 2)} == {held.id, lost.id}
        assert sorted(ids(await self.take(another_broker, queue, 2))) == sorted([soon.id, lost.id])
        assert [waiting.envelope for waiting in await another_broker.peek(queue)] == [later]

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def test_claim_without_waiting(self, broker: Broker, queue: str) -> None:
        """A claim that may not wait returns at once with what there is."""
        await self.assert_nothing_ready(broker, queue)
        await self.put_one(broker, queue)
        assert len(await broker.claim([queue], consumer="w1", limit=5, wait=0)) == 1

    async def test_claim_waits_no_longer_than_told(self, broker: Broker, queue: str) -> None:
        """A claim returns empty-handed when its wait is over, not before."""
        before = trio.current_time()
        with trio.fail_after(self.patience):
            assert await broker.claim([queue], consumer="w1", limit=1, wait=self.short) == []
        assert trio.current_time() - before >= self.short * 0.9

    async def test_claim_does_not_wait_to_fill_up(self, broker: Broker, queue: str) -> None:
        """A claim returns with what it has, however much more it might have taken."""
        await self.put(broker, queue, 3)
        with trio.fail_after(self.patience):
            deliveries = await broker.claim([queue], consumer="w1", limit=100, wait=math.inf)
        assert 1 <= len(deliveries) <= 3

    async def test_publishing_wakes_a_claim(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G12: a claim that waits is given a task that is published meanwhile, by whomever."""
        async with trio.open_nursery() as nursery:
            claim = self.claiming(nursery, broker, [queue])
            await self.pass_time(self.pause)
            assert not claim.ended
            envelope = await self.put_one(another_broker, queue)
            assert ids(await claim.result()) == [envelope.id]

    async def test_any_of_several_queues_wakes_a_claim(self, broker: Broker, queue: str, other_queue: str) -> None:
        """G12: a claim on several queues is woken by each of them."""
        for woken_by in (queue, other_queue):
            async with trio.open_nursery() as nursery:
                claim = self.claiming(nursery, broker, [queue, other_queue])
                await self.pass_time(self.pause)
                envelope = await self.put_one(broker, woken_by)
                (delivery,) = await claim.result()
                assert delivery.envelope == envelope
                assert delivery.lease.queue == woken_by

    @pytest.mark.parametrize("by", ["release", "retry", "retry later", "replay", "replay later", "publish later"])
    async def test_whatever_makes_a_task_ready_wakes_a_claim(
        self, broker: Broker, another_broker: Broker, queue: str, by: str
    ) -> None:
        """G12: a claim that waits is given a task however it becomes ready, at once or after a while."""
        async with trio.open_nursery() as nursery:
            held = None
            if by != "publish later":
                await self.put_one(broker, queue, visibility_timeout=self.long)
                held = await self.take_one(broker, queue)
                if by.startswith("replay"):
                    assert await self.settle_one(broker, held, MoveToDead("r"))
            claim = self.claiming(nursery, another_broker, [queue])
            await self.pass_time(self.pause)
            delay = self.short if by.endswith("later") else 0.0
            if held is None:
                await self.put_one(broker, queue, delay=delay)
            elif by == "release":
                assert await self.settle_one(broker, held, Release())
            elif by.startswith("retry"):
                assert await self.settle_one(broker, held, Retry(delay))
            else:
                await broker.replay_dead_letters(queue, [held.envelope.id], delay=delay)
            assert len(await claim.result()) == 1

    async def test_revoking_a_delayed_task_wakes_a_claim(self, broker: Broker, queue: str) -> None:
        """G8: a delayed task that is revoked is handed out at once, so that its end can be written."""
        envelope = await self.put_one(broker, queue, delay=self.long)
        async with trio.open_nursery() as nursery:
            claim = self.claiming(nursery, broker, [queue])
            await self.pass_time(self.pause)
            assert await broker.revoke(queue, [envelope.id], reason="r") == [True]
            (delivery,) = await claim.result()
            assert delivery.revoked == "r"

    async def test_a_sooner_task_shortens_the_wait(self, broker: Broker, queue: str) -> None:
        """G12: a claim that waits for a far due time is given a task that is due sooner, and published later."""
        await self.put_one(broker, queue, delay=self.long)
        async with trio.open_nursery() as nursery:
            claim = self.claiming(nursery, broker, [queue])
            await self.pass_time(self.pause)
            sooner = await self.put_one(broker, queue, delay=self.short)
            assert ids(await claim.result()) == [sooner.id]

    async def test_several_claims_wait_for_several_tasks(
        self, broker: Broker, another_broker: Broker, queue: str
    ) -> None:
        """G12: as many waiting claims are served as there are tasks, each task going to one; the others wait on."""
        async with trio.open_nursery() as nursery:
            claims = [self.claiming(nursery, (broker, another_broker)[number % 2], [queue]) for number in range(6)]
            await self.pass_time(self.pause)
            envelopes = await self.put(broker, queue, 4, visibility_timeout=self.long)
            with trio.fail_after(self.patience):
                while sum(claim.ended for claim in claims) < 4:
                    await self.pass_time(self.pause)
            served = [await claim.result() for claim in claims if claim.ended]
            assert sorted(task_id for deliveries in served for task_id in ids(deliveries)) == sorted(ids(envelopes))
            for claim in claims:
                await claim.cancel()

    async def test_claims_on_different_queues_do_not_steal_wake_ups(
        self, broker: Broker, queue: str, other_queue: str
    ) -> None:
        """G12: a claim that could take from either of two queues does not keep another one from its only queue."""
        async with trio.open_nursery() as nursery:
            either = self.claiming(nursery, broker, [queue, other_queue])
            await self.pass_time(self.pause)
            only = self.claiming(nursery, broker, [queue])
            await self.pass_time(self.pause)
            batch = [make_envelope(queue=queue), make_envelope(queue=other_queue, priority=9)]
            assert await broker.publish(batch) == [True, True]
            taken = ids(await either.result())
            if taken == [batch[0].id]:  # pragma: no cover - a store may order otherwise; nothing is left then
                assert await broker.publish([make_envelope(queue=queue)]) == [True]
            assert len(await only.result()) == 1

    # --- cancellation -------------------------------------------------------------------------------------------------

    async def test_cancelled_claim_takes_nothing(self, broker: Broker, queue: str) -> None:
        """G1: a claim that was cancelled while it waited takes nothing of what is published afterwards."""
        async with trio.open_nursery() as nursery:
            claim = self.claiming(nursery, broker, [queue])
            await self.pass_time(self.pause)
            assert await claim.cancel() == []
        envelope = await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert (delivery.envelope, delivery.deliveries) == (envelope, 1)

    async def test_claim_cancelled_as_it_is_woken_loses_nothing(self, broker: Broker, queue: str) -> None:
        """G1: a task that is published while a claim is being cancelled goes to that claim, or to the next one."""
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                claim = self.claiming(nursery, broker, [queue], wait=self.long)
                await self.pass_time(self.pause / 10)
                envelope = await self.put_one(broker, queue, visibility_timeout=self.short)
                returned = await claim.cancel()
            deliveries = returned[0] if returned else await self.take(broker, queue, 1)
            assert ids(deliveries) == [envelope.id]
            await self.complete(broker, *deliveries)
        await self.assert_places(broker, queue)

    async def test_cancelled_waiter_passes_its_wake_up_on(self, broker: Broker, queue: str) -> None:
        """G12: when one of two waiting claims is cancelled as a task comes, the other one is given it."""
        for cancelled in (0, 1):
            async with trio.open_nursery() as nursery:
                claims = []
                for _ in range(2):
                    claims.append(self.claiming(nursery, broker, [queue]))
                    await self.pass_time(self.pause)
                envelope = await self.put_one(broker, queue, visibility_timeout=self.short)
                returned = await claims[cancelled].cancel()
                if returned:
                    await claims[1 - cancelled].cancel()
                else:
                    returned = [await claims[1 - cancelled].result()]
                assert ids(returned[0]) == [envelope.id]
                await self.complete(broker, *returned[0])

    async def test_cancelled_publish_is_whole_or_nothing(self, broker: Broker, queue: str) -> None:
        """G2: a task whose publishing was cancelled is there once or not at all, and publishing again mends it."""
        envelope = make_envelope(queue=queue)
        with trio.CancelScope() as scope:
            scope.cancel()
            await broker.publish([envelope])
        stats = await broker.stats(queue)
        assert (stats.ready, stats.unfinished + stats.dead) in [(0, 0), (1, 1)]
        assert await broker.publish([envelope]) == [stats.ready == 0]
        await self.assert_places(broker, queue, ready=1)

    async def test_cancelled_settlement_is_whole_or_nothing(self, broker: Broker, queue: str) -> None:
        """G2: a delivery whose settling was cancelled is settled or held still; settling again is safe."""
        await self.put_one(broker, queue, visibility_timeout=self.long)
        delivery = await self.take_one(broker, queue)
        with trio.CancelScope() as scope:
            scope.cancel()
            await broker.settle([(delivery.lease, Retry(self.long))])
        stats = await broker.stats(queue)
        assert (stats.leased, stats.delayed) in [(1, 0), (0, 1)]
        assert await self.settle_one(broker, delivery, Retry(self.long)) is (stats.leased == 1)
        await self.assert_places(broker, queue, delayed=1)
