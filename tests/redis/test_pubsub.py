"""Subscriptions over one connection that may be lost."""

from __future__ import annotations

import pytest
import trio

from stem_trio import StoreClosedError, StoreUnavailableError
from stem_trio.stores.redis import RedisBroker, RedisCommands
from stem_trio.stores.redis.address import parse_address
from stem_trio.stores.redis.pubsub import Inbox, PubSub
from tests.redis.servers import fake_server, serve, until


async def test_subscribed_again_after_a_lost_connection(redis_url, prefix):
    """G11: subscriptions are renewed with their connection, and each subscriber is told that it may miss some."""
    async with (
        RedisBroker.connect(f"{redis_url}?client_name={prefix}", prefix=prefix) as broker,
        RedisCommands.connect(redis_url) as admin,
        broker.subscribe("one") as one,
        broker.subscribe("two") as two,
    ):
        [ident] = [client["id"] for client in await admin.client_list(_type="pubsub") if client["name"] == prefix]
        await admin.client_kill_filter(_id=ident)
        for inbox in (one, two):
            await inbox.wait_changed()
            assert inbox.take() is None
            assert inbox.gaps == 1

        async def subscribed():
            return (await admin.pubsub_numsub(*(f"{prefix}:broadcast:{name}" for name in ("one", "two")))) == [
                (f"{prefix}:broadcast:one".encode(), 1),
                (f"{prefix}:broadcast:two".encode(), 1),
            ]

        await until(subscribed)
        await broker.broadcast("two", b"2")
        await broker.broadcast("one", b"1")
        assert await one.receive() == b"1"
        assert await two.receive() == b"2"


async def test_one_subscription_for_many(redis_url, prefix):
    """Subscribers of one channel share the server's subscription; it ends with the last of them."""
    async with RedisBroker.connect(redis_url, prefix=prefix) as broker, RedisCommands.connect(redis_url) as admin:
        channel = f"{prefix}:broadcast:channel"

        async def subscribers():
            [(_, count)] = await admin.pubsub_numsub(channel)
            return count

        async with broker.subscribe("channel") as first:
            async with broker.subscribe("channel") as second:
                assert await subscribers() == 1
                await broker.broadcast("channel", b"both")
                assert await second.receive() == b"both"
            assert await first.receive() == b"both"
            await broker.broadcast("channel", b"one")
            assert await first.receive() == b"one"

        async def over():
            return await subscribers() == 0

        await until(over)


async def test_the_oldest_messages_give_way():
    """G14: a subscriber that does not read keeps the last thousand or so, and not more."""
    inbox = Inbox()
    for number in range(5000):
        inbox.put(b"%d" % number)
    received = [await inbox.receive() for _ in range(1024)]
    assert received == [b"%d" % number for number in range(5000 - 1024, 5000)]
    assert inbox.take() is None


async def test_closed_while_waiting(redis_url, prefix):
    """Who still waits for a message when the store is closed is told."""
    subscribed, told = trio.Event(), trio.Event()

    async def receive(broker):
        async with broker.subscribe("channel") as inbox:
            subscribed.set()
            with pytest.raises(StoreClosedError):
                await inbox.receive()
        told.set()

    async with trio.open_nursery() as nursery:
        async with RedisBroker.connect(redis_url, prefix=prefix) as broker:
            nursery.start_soon(receive, broker)
            await subscribed.wait()
    assert told.is_set()


async def test_a_server_that_does_not_confirm():
    """A subscription that is not confirmed in time is an outage, not a wait for ever."""
    async with fake_server() as fake, trio.open_nursery() as nursery:
        pubsub = PubSub(parse_address(fake.url), command_timeout=0.3, patience=0.1)
        await nursery.start(pubsub.run)
        fake.answers["SUBSCRIBE"] = fake.answers["PING"] = None
        fake.answers["HELLO"] = None
        with pytest.raises(StoreUnavailableError, match="no subscription"):
            async with pubsub.subscribe("channel"):
                pass  # pragma: no cover
        nursery.cancel_scope.cancel()


async def test_subscribing_through_an_outage(prefix):
    """G11: a subscription that meets an outage is made when the server is back, if that is in its time."""
    with serve() as server:
        async with RedisBroker.connect(server.url, prefix=prefix) as broker:
            async with broker.subscribe("channel"):
                pass
            server.kill()
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def start():
                    await trio.to_thread.run_sync(server.start)

                async with broker.subscribe("channel") as inbox:
                    await broker.broadcast("channel", b"hello")
                    assert await inbox.receive() == b"hello"
