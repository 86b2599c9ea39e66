"""Broadcasts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from ...ids import new_task_id
from ._broker_base import BrokerTests
from ._make import ODD_NAMES

if TYPE_CHECKING:
    from ...abc import Broker, Subscription

__all__ = ["ChannelTests"]


class ChannelTests(BrokerTests):
    """Every subscriber receives every message, once and in order."""

    @pytest.fixture
    def channel(self) -> str:
        """The name of a channel that nobody else uses."""
        return f"c-{new_task_id()}"

    async def receive(self, subscription: Subscription, count: int) -> list[bytes]:
        """That many messages, which must come."""
        with trio.fail_after(self.patience):
            return [await subscription.receive() for _ in range(count)]

    async def assert_silent(self, subscription: Subscription) -> None:
        """No message comes."""
        with trio.move_on_after(self.pause) as scope:
            await subscription.receive()
        assert scope.cancelled_caught

    async def test_fan_out(self, broker: Broker, another_broker: Broker, channel: str) -> None:
        """Each subscriber, on whichever connection, receives each message once, in the order of sending (B16)."""
        messages = [f"message {number}".encode() for number in range(20)]
        async with AsyncExitStack() as stack:
            subscriptions = [
                await stack.enter_async_context(source.subscribe(channel))
                for source in (broker, broker, another_broker, another_broker)
            ]
            for message in messages:
                await broker.broadcast(channel, message)
            for subscription in subscriptions:
                assert await self.receive(subscription, 20) == messages
            for subscription in subscriptions:
                await self.assert_silent(subscription)

    async def test_receiving_waits(self, broker: Broker, another_broker: Broker, channel: str) -> None:
        """Who waits for a message is given the next one."""
        async with broker.subscribe(channel) as subscription, trio.open_nursery() as nursery:
            waiting = self.start(nursery, subscription.receive)
            await self.pass_time(self.pause)
            assert not waiting.ended
            await another_broker.broadcast(channel, b"hello")
            assert await waiting.result() == b"hello"

    async def test_no_history(self, broker: Broker, channel: str) -> None:
        """A subscriber receives nothing that was sent before it came, or after it left and came back."""
        await broker.broadcast(channel, b"before")
        async with broker.subscribe(channel) as subscription:
            await self.assert_silent(subscription)
            await broker.broadcast(channel, b"during")
            assert await self.receive(subscription, 1) == [b"during"]
        await broker.broadcast(channel, b"between")
        async with broker.subscribe(channel) as subscription:
            await self.assert_silent(subscription)

    async def test_channels_are_separate(self, broker: Broker, channel: str) -> None:
        """A message is received on its own channel only, whatever the names look like."""
        names = [f"{channel}{name}" for name in ODD_NAMES]
        async with AsyncExitStack() as stack:
            subscriptions = [await stack.enter_async_context(broker.subscribe(name)) for name in names]
            for name in names:
                await broker.broadcast(name, name.encode())
            for name, subscription in zip(names, subscriptions, strict=True):
                assert await self.receive(subscription, 1) == [name.encode()]
            await self.assert_silent(subscriptions[0])

    async def test_any_bytes(self, broker: Broker, channel: str) -> None:
        """A message is any bytes, none and many included."""
        messages = [b"", b"\x00\xff\r\n", bytes(range(256)), b"x" * 100_000]
        async with broker.subscribe(channel) as subscription:
            for message in messages:
                await broker.broadcast(channel, message)
            assert await self.receive(subscription, 4) == messages

    async def test_cancelled_receive_loses_nothing(self, broker: Broker, channel: str) -> None:
        """A message that comes while `receive` is being cancelled is received by it, or by the next one."""
        async with broker.subscribe(channel) as subscription:
            for number in range(20):
                message = str(number).encode()
                async with trio.open_nursery() as nursery:
                    waiting = self.start(nursery, subscription.receive)
                    await self.pass_time(self.pause / 10)
                    await broker.broadcast(channel, message)
                    received = await waiting.cancel()
                assert (received or await self.receive(subscription, 1)) == [message]
            await self.assert_silent(subscription)

    async def test_leaving_does_not_disturb_others(self, broker: Broker, channel: str) -> None:
        """When one of two subscribers leaves, the other one goes on receiving."""
        async with broker.subscribe(channel) as stays:
            async with broker.subscribe(channel) as leaves:
                await broker.broadcast(channel, b"1")
                assert await self.receive(leaves, 1) == [b"1"]
            await broker.broadcast(channel, b"2")
            assert await self.receive(stays, 2) == [b"1", b"2"]

    async def test_broadcast_to_nobody(self, broker: Broker, channel: str) -> None:
        """Sending to a channel without subscribers is no error."""
        await broker.broadcast(channel, b"anybody?")
