"""Dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...outcome import Complete, MoveToDead, Release, Retry
from ._broker_base import BrokerTests

if TYPE_CHECKING:
    from ...abc import Broker
    from ...envelope import Envelope

__all__ = ["DeadLetterTests"]


class DeadLetterTests(BrokerTests):
    """Tasks that were given up are kept, shown, replayed and purged."""

    async def bury(self, broker: Broker, queue: str, count: int = 1) -> list[Envelope]:
        """Publish tasks and give them up, one after the other."""
        envelopes = []
        for _ in range(count):
            envelopes.append(await self.put_one(broker, queue))
            delivery = await self.take_one(broker, queue)
            assert await self.settle_one(broker, delivery, MoveToDead("r"))
        return envelopes

    async def test_dead_letter_keeps_everything(self, broker: Broker, queue: str) -> None:
        """G1: a task that is given up is kept with its reason, and its numbers as they were in that delivery (B6)."""
        envelope = await self.put_one(broker, queue, visibility_timeout=self.short, headers={"a": "b"}, priority=4)
        assert await self.settle_one(broker, await self.take_one(broker, queue), Retry(0.0))
        await self.take_one(broker, queue)
        await self.pass_short()
        delivery = await self.take_one(broker, queue)
        assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (1, 3, 1)
        reason, detail = "poison: ☠", "line one\nline | two {}"
        assert await self.settle_one(broker, delivery, MoveToDead(reason, detail))
        (letter,) = await broker.list_dead_letters(queue)
        assert letter.envelope == envelope
        assert (letter.reason, letter.detail) == (reason, detail)
        assert (letter.attempt, letter.deliveries, letter.strikes) == (1, 3, 1)
        assert letter.dead_at >= delivery.claimed_at
        assert await broker.get_dead_letter(queue, envelope.id) == letter

    async def test_dead_letters_newest_first(self, broker: Broker, queue: str) -> None:
        """Dead letters are listed with the newest first, and page by page the same."""
        envelopes = []
        for _ in range(7):
            envelopes += await self.bury(broker, queue)
            await self.pass_time(0.005)  # two within one tick of the store's clock have no order
        expected = [envelope.id for envelope in reversed(envelopes)]
        assert [letter.envelope.id for letter in await broker.list_dead_letters(queue)] == expected
        for size in (1, 3, 10):
            pages = [await broker.list_dead_letters(queue, limit=size, offset=at) for at in range(0, 7, size)]
            assert all(len(page) <= size for page in pages)
            assert [letter.envelope.id for page in pages for letter in page] == expected
        assert await broker.list_dead_letters(queue, offset=7) == []

    async def test_dead_letters_are_per_queue(self, broker: Broker, queue: str, other_queue: str) -> None:
        """A dead letter belongs to the queue of its task; through another one it cannot be seen or touched."""
        (envelope,) = await self.bury(broker, queue)
        await self.bury(broker, other_queue)
        assert await broker.get_dead_letter(other_queue, envelope.id) is None
        assert await broker.replay_dead_letters(other_queue, [envelope.id]) == [None]
        assert await broker.purge_dead_letters(other_queue, [envelope.id]) == 0
        assert await broker.purge_dead_letters(other_queue) == 1
        assert await broker.get_dead_letter(queue, envelope.id) is not None

    async def test_unknown_dead_letter(self, broker: Broker, queue: str) -> None:
        """What is not dead is no dead letter, whether it is known or not."""
        envelope = await self.put_one(broker, queue)
        assert await broker.get_dead_letter(queue, envelope.id) is None
        assert await broker.get_dead_letter(queue, "unknown") is None
        assert await broker.replay_dead_letters(queue, [envelope.id, "unknown"]) == [None, None]
        assert await broker.purge_dead_letters(queue, [envelope.id, "unknown"]) == 0
        await self.assert_places(broker, queue, ready=1)

    async def test_replay(self, broker: Broker, queue: str) -> None:
        """G7: a replayed task starts again with attempt 0 and no strikes; deliveries count on (B8)."""
        envelope = await self.put_one(broker, queue, visibility_timeout=self.short)
        assert await self.settle_one(broker, await self.take_one(broker, queue), Retry(0.0))
        await self.take_one(broker, queue)
        await self.pass_short()
        assert await self.settle_one(broker, await self.take_one(broker, queue), MoveToDead("r"))
        letter = await broker.get_dead_letter(queue, envelope.id)
        assert letter is not None
        assert await broker.replay_dead_letters(queue, [envelope.id]) == [letter]
        await self.assert_places(broker, queue, ready=1)
        delivery = await self.take_one(broker, queue)
        assert delivery.envelope == envelope
        assert (delivery.attempt, delivery.deliveries, delivery.strikes) == (0, 4, 0)
        assert await broker.get_dead_letter(queue, envelope.id) is None
        await self.complete(broker, delivery)
        await self.assert_places(broker, queue)

    async def test_replay_with_delay(self, broker: Broker, queue: str) -> None:
        """B9: a task replayed with a delay is not handed out before, but then."""
        soon, later = await self.bury(broker, queue, 2)
        before = trio.current_time()
        assert None not in await broker.replay_dead_letters(queue, [soon.id], delay=self.short)
        assert None not in await broker.replay_dead_letters(queue, [later.id], delay=self.long)
        assert (await self.take_one(broker, queue)).envelope == soon
        assert trio.current_time() - before >= self.short * 0.9
        await self.assert_nothing_ready(broker, queue)
        await self.assert_places(broker, queue, leased=1, delayed=1)

    async def test_replay_of_some(self, broker: Broker, queue: str) -> None:
        """A replay answers for each id, in order: what was put back, or None; the second time None too."""
        a, b, c = await self.bury(broker, queue, 3)
        replayed = await broker.replay_dead_letters(queue, [c.id, "unknown", a.id, c.id])
        assert [letter and letter.envelope.id for letter in replayed] == [c.id, None, a.id, None]
        assert [letter.envelope for letter in await broker.list_dead_letters(queue)] == [b]
        await self.assert_places(broker, queue, ready=2, dead=1)

    async def test_replay_at_the_same_time(self, broker: Broker, another_broker: Broker, queue: str) -> None:
        """G2: of several who replay a dead letter at the same time exactly one does."""
        (envelope,) = await self.bury(broker, queue)
        answers = []

        async def replay(through: Broker) -> None:
            answers.extend(await through.replay_dead_letters(queue, [envelope.id]))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(replay, broker)
                nursery.start_soon(replay, another_broker)
        assert sum(answer is not None for answer in answers) == 1
        await self.assert_places(broker, queue, ready=1)

    async def test_dying_again(self, broker: Broker, queue: str) -> None:
        """A replayed task that is given up once more is a dead letter again, the newest one."""
        first, second = await self.bury(broker, queue, 2)
        await self.pass_time(0.005)
        await broker.replay_dead_letters(queue, [first.id])
        assert await self.settle_one(broker, await self.take_one(broker, queue), MoveToDead("again"))
        letters = await broker.list_dead_letters(queue)
        assert [letter.envelope for letter in letters] == [first, second]
        assert (letters[0].reason, letters[0].attempt, letters[0].deliveries) == ("again", 0, 2)

    async def test_purging_dead_letters(self, broker: Broker, queue: str) -> None:
        """Dead letters are deleted by id, or all of a queue; nothing else goes with them (B7)."""
        a, b, c = await self.bury(broker, queue, 3)
        await self.put_one(broker, queue)
        assert await broker.purge_dead_letters(queue, [b.id, "unknown", b.id]) == 1
        assert await broker.get_dead_letter(queue, b.id) is None
        assert {letter.envelope.id for letter in await broker.list_dead_letters(queue)} == {a.id, c.id}
        assert await broker.purge_dead_letters(queue) == 2
        assert await broker.purge_dead_letters(queue) == 0
        await self.assert_places(broker, queue, ready=1)

    async def test_purged_dead_letter_frees_its_id(self, broker: Broker, queue: str) -> None:
        """G14: nothing is kept of a purged dead letter, not even its id."""
        (envelope,) = await self.bury(broker, queue)
        assert await broker.purge_dead_letters(queue) == 1
        assert await broker.publish([envelope]) == [True]
        assert (await self.take_one(broker, queue)).deliveries == 1

    async def test_only_the_holder_can_bury(self, broker: Broker, queue: str) -> None:
        """G3: a task that was released cannot be given up by the lease it had."""
        await self.put_one(broker, queue)
        delivery = await self.take_one(broker, queue)
        assert await self.settle_one(broker, delivery, Release())
        assert not await self.settle_one(broker, delivery, MoveToDead("r"))
        assert await broker.list_dead_letters(queue) == []
        assert await self.settle_one(broker, await self.take_one(broker, queue), Complete())
