"""What is specific to the broker in memory; everything else is in the contract."""

from __future__ import annotations

import math
from datetime import timedelta
from functools import partial

import msgspec
import pytest
import trio
import trio.testing

from stem_trio.clock import TrioClock
from stem_trio.errors import InvalidOptionError, StoreClosedError, StoreError
from stem_trio.outcome import Complete, MoveToDead, Release, Retry, Settlement
from stem_trio.stores.memory import InMemoryBroker
from stem_trio.testing.contracts import make_envelope

Q, R = "queue", "other"


async def put(broker, count=1, *, queue=Q, delay=0.0, **fields):
    envelopes = [make_envelope(queue=queue, **fields) for _ in range(count)]
    assert await broker.publish(envelopes, delay=delay) == [True] * count
    return [envelope.id for envelope in envelopes]


async def take(broker, limit=1, queues=(Q,), wait=0):
    return await broker.claim(queues, consumer="w", limit=limit, wait=wait)


async def settle(broker, settlement, *deliveries):
    return await broker.settle([(delivery.lease, settlement) for delivery in deliveries])


async def places(broker, queue=Q):
    stats = await broker.stats(queue)
    return stats.ready, stats.delayed, stats.leased, stats.dead


def ids(deliveries):
    return [delivery.envelope.id for delivery in deliveries]


@pytest.fixture
async def broker():
    async with InMemoryBroker(clock=TrioClock()) as broker:
        yield broker


async def subscribe(broker):
    async with broker.subscribe("c"):
        pass


OPERATIONS = {
    "publish": lambda broker, lease: broker.publish([make_envelope(queue=Q)]),
    "claim": lambda broker, lease: take(broker, 1),
    "renew": lambda broker, lease: broker.renew([lease]),
    "settle": lambda broker, lease: broker.settle([(lease, Complete())]),
    "revoke": lambda broker, lease: broker.revoke(Q, ["ready"]),
    "peek": lambda broker, lease: broker.peek(Q),
    "purge": lambda broker, lease: broker.purge(Q),
    "stats": lambda broker, lease: broker.stats(Q),
    "list_dead_letters": lambda broker, lease: broker.list_dead_letters(Q),
    "get_dead_letter": lambda broker, lease: broker.get_dead_letter(Q, "dead"),
    "replay_dead_letters": lambda broker, lease: broker.replay_dead_letters(Q, ["dead"]),
    "purge_dead_letters": lambda broker, lease: broker.purge_dead_letters(Q),
    "broadcast": lambda broker, lease: broker.broadcast("c", b"m"),
    "subscribe": lambda broker, lease: subscribe(broker),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


async def one_in_each_place(broker):
    """A task in each place, and the lease of the leased one."""
    await put(broker, id="dead")
    assert await settle(broker, MoveToDead("r"), *await take(broker)) == [True]
    await put(broker, id="leased")
    (delivery,) = await take(broker)
    await put(broker, id="ready")
    await put(broker, id="delayed", delay=60.0)
    assert await places(broker) == (1, 1, 1, 1)
    return delivery.lease


class TestOpenAndClosed:
    @each_operation
    async def test_closed_broker_refuses(self, operation, mock_clock):
        broker = InMemoryBroker()
        async with broker:
            lease = await one_in_each_place(broker)
        with pytest.raises(StoreClosedError, match="InMemoryBroker"):
            await operation(broker, lease)

    async def test_new_broker_is_closed(self):
        with pytest.raises(StoreClosedError):
            await InMemoryBroker().stats(Q)

    async def test_open_broker_cannot_be_opened(self, broker):
        with pytest.raises(StoreError, match="open already"):
            await broker.__aenter__()
        assert await places(broker) == (0, 0, 0, 0)

    async def test_content_is_kept_and_time_goes_on_while_closed(self, mock_clock):
        broker = InMemoryBroker()
        async with broker:
            lease = await one_in_each_place(broker)
        mock_clock.jump(20.0)
        async with broker:
            assert await places(broker) == (1, 1, 1, 1)
            assert await broker.renew([lease]) == [True]
        mock_clock.jump(40.0)
        async with broker:
            assert await places(broker) == (3, 0, 0, 1)

    def test_no_time_passes_between_two_runs(self):
        broker = InMemoryBroker(dead_letter_retention=50.0)

        async def first():
            async with broker:
                await one_in_each_place(broker)
                await trio.sleep(10.0)

        async def second():
            async with broker:
                await trio.sleep(19.9)
                assert await places(broker) == (1, 1, 1, 1)
                await trio.sleep(0.2)  # the lease of 30 s ends
                assert await places(broker) == (2, 1, 0, 1)
                await trio.sleep(19.8)  # so does the retention of 50 s
                assert await places(broker) == (2, 1, 0, 1)
                await trio.sleep(0.2)
                assert await places(broker) == (2, 1, 0, 0)
                await trio.sleep(9.8)  # and the delay of 60 s
                assert await places(broker) == (2, 1, 0, 0)
                await trio.sleep(0.2)
                assert await places(broker) == (3, 0, 0, 0)

        late = trio.testing.MockClock(autojump_threshold=0)
        late.jump(1e6)
        trio.run(first, clock=late)
        trio.run(second, clock=trio.testing.MockClock(autojump_threshold=0))

    async def test_closing_ends_every_wait(self, mock_clock):
        broker = InMemoryBroker()
        refused = []

        async def wait_for(function):
            with pytest.raises(StoreClosedError):
                await function()
            refused.append(function)

        async def keep_subscription(task_status):
            async with broker.subscribe("c") as subscription:
                task_status.started()
                await wait_for(subscription.receive)

        async with trio.open_nursery() as nursery:
            async with broker:
                nursery.start_soon(wait_for, partial(take, broker, 1, [Q, R], math.inf))
                nursery.start_soon(wait_for, partial(take, broker, 1, [Q], math.inf))
                await nursery.start(keep_subscription)
                await trio.testing.wait_all_tasks_blocked()
        assert len(refused) == 3

    async def test_subscription_of_an_earlier_opening(self, mock_clock):
        broker = InMemoryBroker()
        async with broker:
            old = broker.subscribe("c")
            subscription = await old.__aenter__()
            await broker.broadcast("c", b"1")
        async with broker:
            async with broker.subscribe("c") as new:
                await broker.broadcast("c", b"2")
                assert await subscription.receive() == b"1"
                with pytest.raises(StoreClosedError):
                    await subscription.receive()
                await old.__aexit__(None, None, None)
                await broker.broadcast("c", b"3")
                assert [await new.receive(), await new.receive()] == [b"2", b"3"]

    async def test_error_of_the_block_is_not_hidden_by_a_cancellation(self, mock_clock):
        with trio.CancelScope() as scope:
            with pytest.raises(KeyError):
                async with InMemoryBroker():
                    scope.cancel()
                    raise KeyError

    @pytest.mark.parametrize(
        "options",
        [
            {"dead_letter_retention": 0},
            {"dead_letter_retention": math.inf},
            {"max_dead_letters": 0},
            {"broadcast_buffer": 0},
        ],
        ids=str,
    )
    def test_options_are_checked(self, options):
        with pytest.raises(InvalidOptionError, match=next(iter(options))):
            InMemoryBroker(**options)


class TestOperations:
    @each_operation
    async def test_each_is_a_checkpoint(self, broker, mock_clock, operation):
        lease = await one_in_each_place(broker)
        with trio.testing.assert_checkpoints():
            await operation(broker, lease)

    @each_operation
    async def test_cancelled_before_it_does_nothing(self, broker, mock_clock, operation):
        lease = await one_in_each_place(broker)
        async with broker.subscribe("c") as subscription:
            with trio.CancelScope() as scope:
                scope.cancel()
                await operation(broker, lease)
            assert scope.cancelled_caught
            assert await places(broker) == (1, 1, 1, 1)
            await broker.broadcast("c", b"after")
            assert await subscription.receive() == b"after"
        assert (await take(broker))[0].revoked is None

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True])
    async def test_limit_of_a_claim(self, broker, limit):
        with pytest.raises(InvalidOptionError, match="limit"):
            await take(broker, limit)

    async def test_claim_from_nowhere(self, broker, autojump_clock):
        assert await take(broker, 1, queues=[], wait=5) == []

    async def test_not_a_settlement(self, broker, mock_clock):
        await put(broker)
        (delivery,) = await take(broker)
        with pytest.raises(TypeError, match="not a settlement"):
            await settle(broker, Settlement(), delivery)
        assert await settle(broker, Complete(), delivery) == [True]

    async def test_lease_of_an_unknown_queue(self, broker, mock_clock):
        await put(broker)
        (delivery,) = await take(broker)
        forged = msgspec.structs.replace(delivery.lease, queue="unknown")
        assert await broker.renew([forged]) == [False]
        assert await broker.settle([(forged, Complete())]) == [False]

    async def test_interrupts_cannot_strike_within_an_operation(self, mock_clock):
        protected = []

        class Clock:
            def now(self):
                protected.append(trio.lowlevel.currently_ki_protected())
                return 0.0

        async with InMemoryBroker(clock=Clock()) as broker:
            assert not trio.lowlevel.currently_ki_protected()
            await put(broker)
            assert await settle(broker, MoveToDead("r"), *await take(broker)) == [True]
        assert protected == [True, True]

    async def test_moments_are_those_of_the_wall_clock(self, broker, mock_clock):
        await put(broker)
        mock_clock.jump(5.0)
        (delivery,) = await take(broker)
        mock_clock.jump(7.0)
        assert await settle(broker, MoveToDead("r"), delivery) == [True]
        (letter,) = await broker.list_dead_letters(Q)
        assert letter.dead_at - delivery.claimed_at == 7.0

    async def test_ids_are_unique_across_queues(self, broker, mock_clock):
        envelope = make_envelope(queue=Q)
        assert await broker.publish([envelope, msgspec.structs.replace(envelope, queue=R)]) == [True, False]
        assert await places(broker, R) == (0, 0, 0, 0)


class TestTime:
    async def test_lease_ends_at_its_deadline(self, broker, mock_clock):
        await put(broker, 2, visibility_timeout=10.0)
        a, b = await take(broker, 2)
        assert a.lease.deadline == trio.current_time() + 10.0
        mock_clock.jump(9.75)
        assert await broker.renew([a.lease]) == [True]
        mock_clock.jump(0.25)
        assert await broker.renew([b.lease]) == [False]
        assert await settle(broker, Complete(), a, b) == [True, False]
        assert await places(broker) == (1, 0, 0, 0)

    async def test_task_is_due_at_its_moment(self, broker, mock_clock):
        await put(broker, delay=10.0)
        mock_clock.jump(9.75)
        assert await places(broker) == (0, 1, 0, 0)
        assert (await broker.peek(Q))[0].due_in == 0.25
        mock_clock.jump(0.25)
        assert await places(broker) == (1, 0, 0, 0)
        assert (await broker.peek(Q))[0].due_in == 0.0

    async def test_waiting_claim_wakes_at_the_very_moment(self, broker, autojump_clock):
        begin = trio.current_time()
        await put(broker, delay=3600.0, visibility_timeout=1800.0)
        for moment in (3600.0, 5400.0, 7200.0):
            assert len(await take(broker, wait=math.inf)) == 1
            assert trio.current_time() == begin + moment

    async def test_ends_of_many_leases_are_found_in_their_order(self, broker, mock_clock):
        """The lower bound of the ends is right after claims, renewals and settlements in any mixture."""
        lengths = [5.0, 50.0, 20.0, 10.0, 40.0, 30.0]
        for length in lengths:
            await put(broker, id=f"{length:g}", visibility_timeout=length)
        leases = {delivery.envelope.id: delivery for delivery in await take(broker, 6)}
        mock_clock.jump(4.0)
        assert await broker.renew([leases["20"].lease]) == [True]  # ends at 24 now
        assert await settle(broker, Complete(), leases["5"]) == [True]
        mock_clock.jump(2.0)
        assert await places(broker) == (0, 0, 5, 0)  # nothing ended at 5, though that was the bound
        ended = []
        while len(ended) < 5:
            mock_clock.jump(1.0)
            back = await take(broker, 9)
            ended += [(trio.current_time(), *ids(back))] if back else []
            assert await settle(broker, Complete(), *back) == [True] * len(back)
        assert ended == [(10.0, "10"), (24.0, "20"), (30.0, "30"), (40.0, "40"), (50.0, "50")]

    async def test_idle_claim_is_not_woken_for_nothing(self, broker, mock_clock):
        """Not by settled leases, nor by the retention of dead letters: under a fake clock, time would jump."""
        await put(broker, 2)
        done, dead = await take(broker, 2)
        assert await settle(broker, Complete(), done) == [True]
        assert broker._queues[Q].ready_at == dead.lease.deadline
        assert await settle(broker, MoveToDead("r"), dead) == [True]
        assert broker._queues[Q].ready_at == math.inf

    async def test_earlier_delay_does_not_count(self, broker, mock_clock):
        """A task that was delayed, revoked, given up and replayed with a delay waits for the last one only."""
        (task_id,) = await put(broker, delay=10.0)
        assert await broker.revoke(Q, [task_id]) == [True]
        assert await settle(broker, MoveToDead("r"), *await take(broker)) == [True]
        await broker.replay_dead_letters(Q, [task_id], delay=30.0)
        mock_clock.jump(29.0)
        assert await places(broker) == (0, 1, 0, 0)
        mock_clock.jump(1.0)
        assert await places(broker) == (1, 0, 0, 0)


class TestOrder:
    async def test_what_comes_back_goes_to_the_front(self, broker, mock_clock):
        a, b, c, d, e = await put(broker, 5, visibility_timeout=10.0)
        held = await take(broker, 4)
        for delivery in (held[2], held[0], held[1]):
            assert await settle(broker, Release(), delivery) == [True]
        assert ids(await broker.peek(Q)) == [a, b, c, e]
        assert ids(await take(broker)) == [a]
        mock_clock.jump(10.0)
        assert ids(await take(broker, 9)) == [a, b, c, d, e]

    async def test_what_comes_back_keeps_its_priority(self, broker, mock_clock):
        (low,) = await put(broker)
        held = await take(broker)
        (high,) = await put(broker, priority=1)
        assert await settle(broker, Release(), *held) == [True]
        assert ids(await take(broker, 9)) == [high, low]

    async def test_retry_goes_to_the_end(self, broker, mock_clock):
        a, b = await put(broker, 2)
        assert await settle(broker, Retry(0.0), *await take(broker)) == [True]
        assert ids(await take(broker, 9)) == [b, a]

    async def test_any_priority(self, broker, mock_clock):
        for priority in (0, -3, 1000, 9):
            await put(broker, id=str(priority), priority=priority)
        assert ids(await take(broker, 9)) == ["1000", "9", "0", "-3"]

    async def test_queues_share_a_claim(self, broker, mock_clock):
        for queue in ("a", "b", "c"):
            await put(broker, 10, queue=queue)
        taken = [delivery.lease.queue for delivery in await take(broker, 9, queues="abc")]
        assert sorted(taken) == ["a", "a", "a", "b", "b", "b", "c", "c", "c"]

    async def test_queue_served_least_recently_comes_first(self, broker, mock_clock):
        for queue in ("a", "b", "c"):
            await put(broker, 4, queue=queue)
        order = [(await take(broker, 1, queues=queues))[0].lease.queue for queues in ("abc", "abc", "bca", "cab")]
        assert order == ["a", "b", "c", "a"]
        assert [delivery.lease.queue for delivery in await take(broker, 2, queues="abc")] == ["b", "c"]

    async def test_remainder_of_a_share_goes_to_who_has_more(self, broker, mock_clock):
        await put(broker, 1, queue="a")
        await put(broker, 9, queue="b")
        await put(broker, 1, queue="b", priority=5)
        taken = [delivery.lease.queue for delivery in await take(broker, 8, queues="ab")]
        assert (taken[0], taken.count("a"), taken.count("b")) == ("b", 1, 7)


class TestWaking:
    async def test_woken_claim_cannot_be_cancelled_any_more(self, broker, mock_clock):
        """Nothing is lost, not even for the time of a lease."""
        got = []

        async def claim():
            with scope:
                got.extend(await take(broker, wait=math.inf))

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(claim)
            await trio.testing.wait_all_tasks_blocked()
            (task_id,) = await put(broker)  # no checkpoint between its last step and the next line
            scope.cancel()
        assert ids(got) == [task_id]

    async def test_wake_up_is_passed_on(self, broker, mock_clock):
        """Who is woken for one task and takes another wakes the next one in line."""
        got = {}

        async def claim(name, *queues):
            got[name] = ids(await take(broker, 1, queues, wait=math.inf))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim, "either", Q, R)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(claim, "only", Q)
            await trio.testing.wait_all_tasks_blocked()
            low, high = make_envelope(queue=Q), make_envelope(queue=R, priority=9)
            assert await broker.publish([low, high]) == [True, True]
        assert got == {"either": [high.id], "only": [low.id]}

    async def test_as_many_are_woken_as_there_are_tasks(self, broker, mock_clock):
        woken = []

        async def claim(name):
            woken.append((name, len(await take(broker, 1, wait=math.inf))))

        async with trio.open_nursery() as nursery:
            for name in range(5):
                nursery.start_soon(claim, name)
                await trio.testing.wait_all_tasks_blocked()
            await put(broker, 3)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(woken) == [(0, 1), (1, 1), (2, 1)], "those who wait longest come first"
            await put(broker, 2)

    async def test_claim_learns_of_a_lease_taken_meanwhile(self, broker, autojump_clock):
        """One that began to wait when nothing was leased still wakes when a later lease ends."""
        got = []

        async def claim():
            got.extend(await take(broker, 1, [Q, R], wait=math.inf))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim)
            await trio.sleep(1.0)
            # Published and taken by one who is quicker: both steps between two of the waiting claim's.
            await put(broker, 2, visibility_timeout=10.0)
            await take(broker, 2)
        assert len(got) == 1

    async def test_waiting_does_not_lose_a_forgotten_queue(self, broker, autojump_clock):
        """Queues that are idle are forgotten, except for those that somebody waits for."""
        got = []

        async def claim():
            got.extend(await take(broker, 1, wait=math.inf))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(300):
                assert await take(broker, 1, [f"idle-{number}"]) == []
            await put(broker)
        assert len(got) == 1


class TestBounds:
    async def test_delayed_tasks_that_were_removed(self, broker, mock_clock):
        await put(broker, delay=1000.0)
        for _ in range(100):
            purged = await put(broker, 10, delay=2000.0)
            assert await broker.purge(Q, purged) == 10
            revoked = await put(broker, 10, delay=500.0)
            assert await broker.revoke(Q, revoked) == [True] * 10
            assert await settle(broker, Complete(), *await take(broker, 10)) == [True] * 10
        assert len(broker._queues[Q]._heap) < 200
        assert await places(broker) == (0, 1, 0, 0)
        mock_clock.jump(1000.0)
        assert await places(broker) == (1, 0, 0, 0)

    async def test_ready_tasks_that_were_removed_behind_others(self, broker, mock_clock):
        (stays,) = await put(broker)
        for _ in range(100):
            assert await broker.purge(Q, await put(broker, 9)) == 9
        assert len(broker._queues[Q].lanes[0].fresh) < 100
        assert [waiting.envelope.id for waiting in await broker.peek(Q)] == [stays]
        assert ids(await take(broker, 9)) == [stays]

    async def test_returned_tasks_that_were_removed(self, broker, mock_clock):
        tasks = await put(broker, 500)
        held = await take(broker, 500)
        assert all(await settle(broker, Release(), *held))
        assert await broker.purge(Q, tasks[1:90]) == 89  # fewer than are left: they stay for a while
        assert [waiting.envelope.id for waiting in await broker.peek(Q, limit=3)] == [tasks[0], *tasks[90:92]]
        assert await broker.purge(Q, tasks[95:]) == 405
        assert len(broker._queues[Q].lanes[0].returned) == 6
        assert ids(await take(broker, 9)) == [tasks[0], *tasks[90:95]]

    async def test_ready_tasks_that_were_removed_from_the_front(self, broker, mock_clock):
        """As a purge in portions does, which must not look at what it has removed again and again."""
        await put(broker, 300)
        for left in range(300, 0, -10):
            shown = await broker.peek(Q, limit=10)
            assert await broker.purge(Q, [waiting.envelope.id for waiting in shown]) == 10
            assert len(broker._queues[Q].lanes[0].fresh) == left - 10

    async def test_claim_skips_what_was_removed(self, broker, mock_clock):
        a, b, c = await put(broker, 3)
        assert await broker.purge(Q, [b]) == 1
        assert ids(await broker.peek(Q)) == [a, c]
        assert ids(await take(broker, 3)) == [a, c]
        assert broker._queues[Q].lanes[0].stale == 0

    async def test_peek_after_a_revoked_delay(self, broker, mock_clock):
        a, b = await put(broker, 2, delay=10.0)
        assert await broker.revoke(Q, [a]) == [True]
        assert [(waiting.envelope.id, waiting.place) for waiting in await broker.peek(Q)] == [
            (a, "ready"),
            (b, "delayed"),
        ]
        assert await broker.purge(Q) == 2
        assert broker._ids == {}

    async def test_queues(self, broker, mock_clock):
        await put(broker, queue="kept", delay=60.0)
        for number in range(1000):
            await put(broker, queue=f"made-up-{number}")
            assert await settle(broker, Complete(), *await take(broker, 1, [f"made-up-{number}"])) == [True]
        assert len(broker._queues) <= 64
        for number in range(1000):
            assert await take(broker, 1, [f"claimed-from-{number}"]) == []
        assert len(broker._queues) <= 64
        for number in range(1000):
            await put(broker, queue=f"purged-{number}")
            assert await broker.purge(f"purged-{number}") == 1
        assert len(broker._queues) <= 64
        assert await places(broker, "kept") == (0, 1, 0, 0)

    async def test_queues_in_use(self, broker, mock_clock):
        for number in range(1000):
            await put(broker, queue=str(number))
        assert len(broker._queues) == 1000
        assert await places(broker, "0") == (1, 0, 0, 0)

    async def test_nothing_is_left_of_a_million_tasks(self, broker, mock_clock):
        """A thousand stand for the million."""
        for _ in range(10):
            await put(broker, 100)
            assert all(await settle(broker, Complete(), *await take(broker, 100)))
        queue = broker._queues[Q]
        assert (broker._ids, queue.leased, queue.idle) == ({}, {}, True)

    async def test_unsubscribed_channels(self, broker, mock_clock):
        for number in range(10):
            async with broker.subscribe(str(number)), broker.subscribe(str(number)):
                assert len(broker._channels) == 1
        assert broker._channels == {}

    async def test_lagging_subscriber_loses_the_oldest(self, mock_clock):
        async with InMemoryBroker(broadcast_buffer=3) as broker, broker.subscribe("c") as subscription:
            for number in range(5):
                await broker.broadcast("c", str(number).encode())
            assert [await subscription.receive() for _ in range(3)] == [b"2", b"3", b"4"]


class TestDeadLetters:
    async def bury(self, broker, task_id, queue=Q):
        await put(broker, id=task_id, queue=queue)
        assert await settle(broker, MoveToDead("r"), *await take(broker, 1, [queue])) == [True]

    async def listed(self, broker, queue=Q):
        return [letter.envelope.id for letter in await broker.list_dead_letters(queue)]

    async def test_retention_by_time(self, mock_clock):
        async with InMemoryBroker(dead_letter_retention=timedelta(minutes=1)) as broker:
            await self.bury(broker, "a")
            mock_clock.jump(30.0)
            await self.bury(broker, "b")
            mock_clock.jump(29.75)
            assert await self.listed(broker) == ["b", "a"]
            mock_clock.jump(0.25)
            assert await places(broker) == (0, 0, 0, 1)
            assert await broker.get_dead_letter(Q, "a") is None
            assert await broker.replay_dead_letters(Q, ["a", "b"]) != [None, None]
            assert await broker.purge_dead_letters(Q) == 0

    async def test_default_retention_is_a_week(self, broker, mock_clock):
        await self.bury(broker, "a")
        mock_clock.jump(7 * 86_400 - 1)
        assert await self.listed(broker) == ["a"]
        mock_clock.jump(1)
        assert await self.listed(broker) == []

    async def test_retention_by_count(self, mock_clock):
        async with InMemoryBroker(max_dead_letters=2) as broker:
            for task_id in "abcd":
                await self.bury(broker, task_id)
            await self.bury(broker, "x", R)
            assert await self.listed(broker) == ["d", "c"]
            assert await self.listed(broker, R) == ["x"]
            assert sorted(broker._ids) == ["c", "d", "x"]

    async def test_id_is_free_after_retention(self, mock_clock):
        """Even if nothing else has looked at that queue since."""
        async with InMemoryBroker(dead_letter_retention=10.0) as broker:
            await self.bury(broker, "a")
            assert await broker.publish([make_envelope(queue=R, id="a")]) == [False]
            mock_clock.jump(10.0)
            assert await broker.publish([make_envelope(queue=R, id="a")]) == [True]
            assert await places(broker) == (0, 0, 0, 0)

    async def test_retention_of_a_replayed_task_does_not_end(self, mock_clock):
        async with InMemoryBroker(dead_letter_retention=10.0) as broker:
            await self.bury(broker, "a")
            await broker.replay_dead_letters(Q, ["a"])
            mock_clock.jump(20.0)
            assert ids(await take(broker)) == ["a"]
