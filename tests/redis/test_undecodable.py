"""A message in a queue that this program cannot read: of another version, or of a program that is none of ours."""

from __future__ import annotations

import struct
from functools import partial

import pytest
import trio
import trio.testing

from stem_trio import Stem, StemSignals, TaskState, Worker, task
from stem_trio.outcome import Complete, MoveToDead
from stem_trio.stores.redis import RedisBroker, RedisCommands, RedisResultBackend
from stem_trio.stores.redis.keys import Keyspace
from stem_trio.testing.contracts import make_envelope

MESSAGES = {"not even JSON": b"\x00junk", "another kind of JSON": b'{"a": 1}', "a newer version": b'{"v": 999}'}


async def spoil(redis_url, prefix, envelope, message):
    """Another program has written a message in place of one of ours."""
    keys = Keyspace(prefix).queue_keys("q")
    async with RedisCommands.connect(redis_url) as commands:
        assert await commands.hset(keys[4], envelope.id, message) == 0


@pytest.fixture
async def broker(redis_url, prefix):
    async with RedisBroker.connect(redis_url, prefix=prefix, command_timeout=5) as broker:
        yield broker


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_the_others_of_its_batch(broker, redis_url, prefix, message):
    """G1: those that were claimed together with it are handed out, once, and it ends with the dead letters."""
    batch = [make_envelope(queue="q", visibility_timeout=0.5) for _ in range(3)]
    await broker.publish(batch)
    await spoil(redis_url, prefix, batch[1], message)
    good = {batch[0].id, batch[2].id}
    seen = []
    with trio.fail_after(10):
        while (await broker.stats("q")).unfinished:
            for delivery in await broker.claim(["q"], consumer="c", limit=3, wait=1):
                # Whatever stands for the one that cannot be read is unknown to a worker, who gives it up.
                known = delivery.envelope.id in good
                seen += [delivery.envelope.id] if known else []
                assert delivery.deliveries == 1
                assert await broker.settle([(delivery.lease, Complete() if known else MoveToDead("unknown", ""))]) == [
                    True
                ]
    assert sorted(seen) == sorted(good)
    assert (await broker.stats("q")).dead == 1
    assert len(await broker.list_dead_letters("q")) <= 1
    assert await broker.purge_dead_letters("q") == 1


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_a_cancelled_claim(broker, redis_url, prefix, message):
    """A claim that was cancelled after it was sent gives back what it can, and the store goes on."""
    envelope = make_envelope(queue="q", visibility_timeout=1000.0)
    await broker.publish([envelope])
    await spoil(redis_url, prefix, envelope, message)
    async with RedisCommands.connect(redis_url) as commands:
        await commands.client_pause(200)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(broker.claim, ["q"], consumer="c", limit=1, wait=0))
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()
    assert (await broker.stats("q")).unfinished == 1


async def test_what_a_worker_makes_of_it(redis_url, prefix):
    """G8: it ends as a dead letter with a status and an event, and a replay hands out the very message again."""
    signals, seen = StemSignals(), []
    signals.task_dead_lettered.connect(lambda event: seen.append((event.envelope.id, event.reason)))

    @task(name="job")
    async def job() -> None:
        """Nothing."""

    url = redis_url
    async with (
        RedisBroker.connect(url, prefix=prefix) as broker,
        RedisResultBackend.connect(url, prefix=prefix) as backend,
    ):
        stem = Stem(broker, backend, tasks=[job], signals=signals)
        bad, good = await stem.publish([job.with_options(queue="q").bind() for _ in range(2)])
        await spoil(redis_url, prefix, bad, b'{"v": 999}')
        with trio.fail_after(10):
            async with Worker(broker, backend, tasks=[job], queue="q", signals=signals):
                assert (await good.wait()).state is TaskState.SUCCEEDED
                result = await bad.wait()
                assert (result.state, result.reason) == (TaskState.FAILED, "unreadable")
                assert "version" in result.error.message
        assert seen == [(bad.id, "unreadable")]
        [dead] = await broker.list_dead_letters("q")
        assert (dead.envelope.id, dead.envelope.name, dead.reason) == (bad.id, "(unreadable)", "unreadable")
        assert await broker.get_dead_letter("q", bad.id) == dead
        assert await stem.replay_dead_letters("q", [bad.id]) == [dead]
        [waiting] = await broker.peek("q")
        assert (waiting.envelope.id, waiting.envelope.name) == (bad.id, "(unreadable)")
        # A version that can read it would run it now.
        await spoil(redis_url, prefix, bad, make_envelope(id=bad.id, name="job", queue="q").encode())
        async with Worker(broker, backend, tasks=[job], queue="q", signals=signals):
            with trio.fail_after(10):
                assert (await bad.wait()).state is TaskState.SUCCEEDED


async def test_numbers_that_are_gone(broker, redis_url, prefix):
    """A task whose numbers somebody else has deleted does not stop its queue."""
    envelopes = [make_envelope(queue="q") for _ in range(2)]
    await broker.publish(envelopes)
    keys = Keyspace(prefix).queue_keys("q")
    async with RedisCommands.connect(redis_url) as commands:
        assert await commands.hdel(keys[5], envelopes[0].id) == 1
    deliveries = await broker.claim(["q"], consumer="c", limit=2, wait=0)
    assert [delivery.envelope for delivery in deliveries] == envelopes
    assert await broker.settle([(delivery.lease, Complete()) for delivery in deliveries]) == [True, True]


def test_layout_of_states():
    """What the test takes for the message is the message: the keys are those of the layout."""
    keys = Keyspace("p").queue_keys("q")
    assert keys[4] == "p:{q}:messages"
    assert struct.calcsize("<ddIIII") == 32
