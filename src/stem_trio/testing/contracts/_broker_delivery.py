"""Publishing, handing out, settling."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from ...ids import new_task_id
from ...outcome import Complete, MoveToDead, Release, Retry
from ...retry import Backoff
from ._broker_base import BrokerTests, ids
from ._make import make_envelope

if TYPE_CHECKING:
    from ...abc import Broker
    from ...envelope import Envelope

__all__ = ["DeliveryTests"]


class DeliveryTests(BrokerTests):
    """A task on its way from `publish` to its end."""

    async def test_completed_task_is_gone(self, broker: Broker, queue: str) -> None:
        """G1: a published task is handed out; once completed it never is again, and no trace of it is left (G14)."""
        envelope = await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert delivery.envelope == envelope
        await self.complete(broker, delivery)
        await self.assert_nothing_ready(broker, queue)
        await self.assert_places(broker, queue)

    async def test_first_delivery(self, broker: Broker, queue: str) -> None:
        """G7: the first hand-out counts as one, with no failed run and no strike; its lease is the envelope's."""
        before = trio.current_time()
        envelope = await self.put_one(broker, queue, visibility_timeout=self.long)
        delivery = await self.take_one(broker, queue)
        lease = delivery.lease
        assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (0, 1, 0)
        assert delivery.revoked is None
        assert delivery.claimed_at > 0
        assert (lease.task_id, lease.queue, lease.duration) == (envelope.id, queue, self.long)
        assert before + self.long <= lease.deadline <= trio.current_time() + self.long

    async def test_queues_are_separate(self, broker: Broker, queue: str, other_queue: str) -> None:
        """B2: a task is handed out from the queue that its envelope names, and from no other."""
        envelope = await self.put_one(broker, other_queue)
        await self.assert_nothing_ready(broker, queue)
        await self.assert_places(broker, queue)
        assert (await self.take_one(broker, other_queue)).envelope == envelope

    async def test_stats_follow_a_task(self, broker: Broker, queue: str) -> None:
        """G1: at each step of its life a task is counted in exactly one place."""
        await self.assert_places(broker, queue)
        await self.put_one(broker, queue)
        await self.assert_places(broker, queue, ready=1)
        delivery = await self.take_one(broker, queue)
        await self.assert_places(broker, queue, leased=1)
        assert await self.settle_one(broker, delivery, Release())
        await self.assert_places(broker, queue, ready=1)
        delivery = await self.take_one(broker, queue)
        assert await self.settle_one(broker, delivery, Retry(0.0))
        await self.assert_places(broker, queue, ready=1)
        delivery = await self.take_one(broker, queue)
        assert await self.settle_one(broker, delivery, MoveToDead("r"))
        await self.assert_places(broker, queue, dead=1)
        assert len(await broker.replay_dead_letters(queue, [delivery.envelope.id], delay=self.long)) == 1
        await self.assert_places(broker, queue, delayed=1)
        assert await broker.purge(queue) == 1
        await self.assert_places(broker, queue)

    async def test_stats_of_an_unknown_queue(self, broker: Broker, queue: str) -> None:
        """A queue that nobody ever published to is an empty one, for every way to look at it."""
        await self.assert_places(broker, queue)
        assert (await broker.stats(queue)).unfinished == 0
        assert await broker.peek(queue) == []
        assert await broker.purge(queue) == 0
        assert await broker.list_dead_letters(queue) == []
        assert await broker.get_dead_letter(queue, "x") is None
        assert await broker.replay_dead_letters(queue, ["x"]) == [None]
        assert await broker.purge_dead_letters(queue) == 0
        assert await broker.revoke(queue, ["x"]) == [False]

    async def test_release_costs_nothing(self, broker: Broker, queue: str) -> None:
        """G7: a task that is given back is ready at once; only `deliveries` has gone up."""
        await self.put_one(broker, queue)
        for turn in range(1, 6):
            delivery = await self.take_one(broker, queue)
            assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (0, turn, 0)
            assert await self.settle_one(broker, delivery, Release())

    async def test_retry_counts_an_attempt(self, broker: Broker, queue: str) -> None:
        """G7: each retry adds one to the attempt; envelope and id stay as they are."""
        envelope = await self.put_one(broker, queue)
        for turn in range(4):
            delivery = await self.take_one(broker, queue)
            assert delivery.envelope == envelope
            assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (turn, turn + 1, 0)
            assert await self.settle_one(broker, delivery, Retry(0.0))

    async def test_retry_waits(self, broker: Broker, queue: str) -> None:
        """G2: a retry with a delay is durable at once, and not handed out before its time."""
        await self.put_one(broker, queue)
        assert await self.settle_one(broker, await self.take_one(broker, queue), Retry(self.long))
        await self.assert_nothing_ready(broker, queue)
        await self.assert_places(broker, queue, delayed=1)

    async def test_retry_comes_back_in_time(self, broker: Broker, queue: str) -> None:
        """G1: a retry with a delay is handed out when that has passed."""
        await self.put_one(broker, queue)
        before = trio.current_time()
        assert await self.settle_one(broker, await self.take_one(broker, queue), Retry(self.short))
        delivery = await self.take_one(broker, queue)
        assert trio.current_time() - before >= self.short * 0.9
        assert (delivery.attempt, delivery.deliveries) == (1, 2)

    async def test_dead_task_is_not_handed_out(self, broker: Broker, queue: str) -> None:
        """B5: what was put with the dead letters is not handed out."""
        await self.put_one(broker, queue)
        assert await self.settle_one(broker, await self.take_one(broker, queue), MoveToDead("r"))
        await self.assert_nothing_ready(broker, queue)

    async def test_settlements_in_one_batch(self, broker: Broker, queue: str) -> None:
        """G2: each settlement of a batch is made on its own delivery."""
        await self.put(broker, queue, 4)
        a, b, c, d = await self.take(broker, queue, 4)
        settlements = [
            (a.lease, Complete()),
            (b.lease, Retry(self.long)),
            (c.lease, MoveToDead("r")),
            (d.lease, Release()),
        ]
        assert await broker.settle(settlements) == [True] * 4
        await self.assert_places(broker, queue, ready=1, delayed=1, dead=1)
        assert (await self.take_one(broker, queue)).envelope == d.envelope

    async def test_settlements_of_several_queues(self, broker: Broker, queue: str, other_queue: str) -> None:
        """A batch may settle deliveries of several queues, good leases and stale ones; each gets its own answer."""
        await self.put_one(broker, queue)
        await self.put_one(broker, other_queue)
        a, b = await self.take(broker, [queue, other_queue], 2)
        await self.complete(broker, a)
        assert await broker.settle([(a.lease, Complete()), (b.lease, Complete())]) == [False, True]
        await self.assert_places(broker, queue)
        await self.assert_places(broker, other_queue)

    # --- publishing again ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("place", ["ready", "delayed", "leased", "dead"])
    async def test_publishing_a_held_id_changes_nothing(self, broker: Broker, queue: str, place: str) -> None:
        """G1: publishing is idempotent: an id that is held, wherever, is neither doubled nor changed."""
        delay = self.long if place == "delayed" else 0.0
        envelope = await self.put_one(broker, queue, name="first", delay=delay)
        if place in ("leased", "dead"):
            delivery = await self.take_one(broker, queue)
            if place == "dead":
                assert await self.settle_one(broker, delivery, MoveToDead("r"))
        again = make_envelope("second", queue=queue, id=envelope.id, priority=9)
        assert await broker.publish([again]) == [False]
        assert await broker.publish([again], delay=self.short) == [False]
        await self.assert_places(broker, queue, **{place: 1})
        if place == "ready":
            assert (await self.take_one(broker, queue)).envelope == envelope
        else:
            await self.assert_nothing_ready(broker, queue)
        if place == "delayed":
            assert [waiting.envelope for waiting in await broker.peek(queue)] == [envelope]
        if place == "dead":
            letter = await broker.get_dead_letter(queue, envelope.id)
            assert letter is not None
            assert letter.envelope == envelope

    async def test_an_id_twice_in_a_batch(self, broker: Broker, queue: str) -> None:
        """Of two envelopes with one id in a batch the first is published; the answers follow the batch's order."""
        first, other = make_envelope("first", queue=queue), make_envelope("other", queue=queue)
        second = make_envelope("second", queue=queue, id=first.id)
        assert await broker.publish([first, second, other]) == [True, False, True]
        assert {delivery.envelope.name for delivery in await self.take(broker, queue, 2)} == {"first", "other"}
        await self.assert_places(broker, queue, leased=2)

    async def test_an_id_is_free_again_after_the_end(self, broker: Broker, queue: str) -> None:
        """G14: nothing is kept of a completed task, not even its id."""
        envelope = await self.put_one(broker, queue)
        await self.complete(broker, await self.take_one(broker, queue))
        assert await broker.publish([envelope]) == [True]
        delivery = await self.take_one(broker, queue)
        assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (0, 1, 0)

    async def test_one_id_from_many_publishers(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G2: of many who publish one id at the same time exactly one does."""
        envelope = make_envelope(queue=queue)
        answers: list[bool] = []

        async def publish(to: Broker) -> None:
            answers.extend(await to.publish([envelope]))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(publish, broker)
                nursery.start_soon(publish, another_broker)
        assert sorted(answers) == [False] * 9 + [True]
        await self.assert_places(broker, queue, ready=1)

    # --- payloads -----------------------------------------------------------------------------------------------------

    async def test_every_field_travels(self, broker: Broker, queue: str) -> None:
        """G16: the envelope that is handed out equals the one that was published, field by field."""
        envelope = make_envelope(
            "every.field",
            queue=queue,
            v=1,
            args=msgspec.Raw(b'{"to":"a@b.c"}'),
            headers={"traceparent": "00-1-2-00", "ключ": "värde", "": ""},
            meta=msgspec.Raw(b'{"nested":{"list":[1,2.5,null,true]}}'),
            priority=5,
            expires_at=4_000_000_000.125,
            max_retries=7,
            backoff=Backoff(base=1.5, factor=3.0, max=99.0, jitter=0.0),
            visibility_timeout=self.long,
            soft_time_limit=1.25,
            hard_time_limit=2.5,
            max_strikes=9,
            result_ttl=12.5,
            ignore_result=True,
            parent_id="parent",
            parent_attempt=2,
            root_id="root",
        )
        assert await broker.publish([envelope]) == [True]
        delivery = await self.take_one(broker, queue)
        assert delivery.envelope == envelope
        assert delivery.envelope.encode() == envelope.encode()

    @pytest.mark.parametrize(
        "raw",
        [
            b"{}",
            b'{ "b" : 1.0, "a":1e5 ,\t"c": 10000000000000000000000001}',
            '{"ключ":"värde 队列 🦆","escaped":"\\u00e4\\ud83e\\udd86\\n"}'.encode(),
            b'{"a":1,"a":2}',
            b'{"large":"' + b"x" * 200 * 1024 + b'"}',
        ],
        ids=["empty", "spaces and number forms", "unicode", "key twice", "200 KiB"],
    )
    async def test_args_and_meta_keep_their_bytes(self, broker: Broker, queue: str, raw: bytes) -> None:
        """G16: args and meta come out byte for byte as they went in, through every place."""
        await self.put_one(broker, queue, args=msgspec.Raw(raw), meta=msgspec.Raw(raw))
        (waiting,) = await broker.peek(queue)
        assert bytes(waiting.envelope.args) == bytes(waiting.envelope.meta) == raw
        delivery = await self.take_one(broker, queue)
        assert bytes(delivery.envelope.args) == bytes(delivery.envelope.meta) == raw
        assert await self.settle_one(broker, delivery, MoveToDead("r"))
        (letter,) = await broker.list_dead_letters(queue)
        assert bytes(letter.envelope.args) == bytes(letter.envelope.meta) == raw
        assert await broker.replay_dead_letters(queue, [delivery.envelope.id], delay=0.05) == [letter]
        delivery = await self.take_one(broker, queue)
        assert bytes(delivery.envelope.args) == bytes(delivery.envelope.meta) == raw

    # --- batches, and many at once ------------------------------------------------------------------------------------

    async def test_empty_batches(self, broker: Broker, queue: str) -> None:
        """An empty batch is accepted everywhere and means nothing, least of all "everything"."""
        envelope = await self.put_one(broker, queue)
        assert await broker.publish([]) == []
        assert await broker.settle([]) == []
        assert await broker.renew([]) == []
        assert await broker.revoke(queue, []) == []
        assert await broker.purge(queue, []) == 0
        assert await self.settle_one(broker, await self.take_one(broker, queue), MoveToDead("r"))
        assert await broker.replay_dead_letters(queue, []) == []
        assert await broker.purge_dead_letters(queue, []) == 0
        assert await broker.get_dead_letter(queue, envelope.id) is not None

    async def test_a_thousand_in_one_batch(self, broker: Broker, queue: str) -> None:
        """A batch of a thousand is published, claimed, renewed and settled like one of one."""
        envelopes = await self.put(broker, queue, 1000, visibility_timeout=self.long)
        await self.assert_places(broker, queue, ready=1000)
        deliveries = await self.take(broker, queue, 1000)
        assert sorted(ids(deliveries)) == sorted(ids(envelopes))
        assert await broker.renew([delivery.lease for delivery in deliveries]) == [True] * 1000
        await self.complete(broker, *deliveries)
        await self.assert_places(broker, queue)

    @pytest.mark.parametrize("limit", [1, 7, 100])
    async def test_limit(self, broker: Broker, queue: str, limit: int) -> None:
        """G9: a claim never takes more than it was allowed to, and leaves the rest ready."""
        await self.put(broker, queue, 120)
        deliveries = await broker.claim([queue], consumer="w1", limit=limit, wait=self.patience)
        assert 1 <= len(deliveries) <= limit
        await self.assert_places(broker, queue, ready=120 - len(deliveries), leased=len(deliveries))

    async def test_competing_consumers(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G3: however many claim at once, each task is handed out once, and none is left out."""
        envelopes = await self.put(broker, queue, 200, visibility_timeout=self.long)
        seen: list[str] = []

        async def consume(source: Broker, consumer: str) -> None:
            while len(seen) < 200:
                deliveries = await source.claim([queue], consumer=consumer, limit=5, wait=self.short)
                seen.extend(ids(deliveries))
                await self.complete(source, *deliveries)

        with trio.fail_after(4 * self.patience):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(consume, broker, f"w{number}")
                    nursery.start_soon(consume, another_broker, f"v{number}")
        assert sorted(seen) == sorted(ids(envelopes))
        await self.assert_places(broker, queue)

    async def test_concurrent_publishers(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G1: what many publish at the same time, while others wait for it, is all there (B10)."""
        batches = [[make_envelope(queue=queue) for _ in range(20)] for _ in range(10)]

        async def publish(to: Broker, batch: list[Envelope]) -> None:
            assert await to.publish(batch) == [True] * len(batch)

        async with trio.open_nursery() as nursery:
            idle = self.start(nursery, partial(broker.claim, [f"{queue}-idle"], consumer="w0", limit=1, wait=self.long))
            await self.pass_time(self.pause)
            async with trio.open_nursery() as publishers:
                for number, batch in enumerate(batches):
                    publishers.start_soon(publish, another_broker if number % 2 else broker, batch)
            deliveries = await self.take(broker, queue, 200)
            await idle.cancel()
        assert sorted(ids(deliveries)) == sorted(envelope.id for batch in batches for envelope in batch)

    async def test_another_connection_sees_the_same(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """A task published by one process is claimed by a second, and settled by a third with the lease alone."""
        envelope = await self.put_one(broker, queue)
        delivery = await self.take_one(another_broker, queue)
        assert delivery.envelope == envelope
        await self.assert_places(broker, queue, leased=1)
        await self.complete(broker, delivery)
        await self.assert_places(another_broker, queue)

    async def test_odd_ids(self, broker: Broker, queue: str) -> None:
        """A task id may be any text that the caller chose."""
        unique = new_task_id()
        chosen = [f"{unique}{tail}" for tail in ("", "|", ":x", " y", "{z}", "*", "'", '"', "%", "ü🦆", "/../", "\\")]
        assert await broker.publish([make_envelope(queue=queue, id=task_id) for task_id in chosen]) == [True] * 12
        deliveries = await self.take(broker, queue, 12)
        assert sorted(ids(deliveries)) == sorted(chosen)
        done = await broker.settle([(delivery.lease, MoveToDead("r")) for delivery in deliveries])
        assert done == [True] * 12
        for task_id in chosen:
            letter = await broker.get_dead_letter(queue, task_id)
            assert letter is not None
            assert letter.envelope.id == task_id
        assert await broker.purge_dead_letters(queue, chosen) == 12
