"""A message in a queue that this program cannot read: of another version, or of a program that is none of ours."""

from __future__ import annotations

import struct
from functools import partial

import pytest
import trio
import trio.testing

from stem_trio.outcome import Complete, MoveToDead
from stem_trio.stores.redis import RedisBroker, RedisCommands
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


@pytest.mark.xfail(reason="a claim raises, and all that it has taken is stuck until its lease ends, again and again")
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


@pytest.mark.xfail(reason="what gives back the tasks of a cancelled claim raises where replies are read: all is closed")
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


def test_layout_of_states():
    """What the test takes for the message is the message: the keys are those of the layout."""
    keys = Keyspace("p").queue_keys("q")
    assert keys[4] == "p:{q}:messages"
    assert struct.calcsize("<ddIIII") == 32
