"""Subscriptions: one connection for all of them, renewed after each reconnection."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ...errors import StoreClosedError
from .connection import Waiter, pack
from .transport import RedisTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .address import RedisAddress
    from .connection import Connection

__all__ = ["Inbox", "PubSub"]

_BUFFER: Final = 1024


@final
class Inbox:
    """Messages of one channel for one subscriber; the oldest give way when it lags.

    Attributes:
        gaps: how often the connection was renewed since the subscription began: messages may have been missed.
    """

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque(maxlen=_BUFFER)
        self._changed = trio.Event()
        self._closed = False
        self.gaps = 0

    def put(self, message: bytes) -> None:
        """A message has come."""
        self._messages.append(message)
        self._changed.set()

    def interrupted(self) -> None:
        """Messages may have been missed."""
        self.gaps += 1
        self._changed.set()

    def close(self) -> None:
        """No message will come any more."""
        self._closed = True
        self._changed.set()

    async def wait_changed(self) -> None:
        """Wait for a message, or for a renewed connection.

        Cancellation: nothing is lost.
        """
        await self._changed.wait()

    def take(self) -> bytes | None:
        """The next message, if there is one. Once there is none, `wait_changed` waits for the next change."""
        if self._messages:
            return self._messages.popleft()
        self._changed = trio.Event()
        if self._closed:
            raise StoreClosedError("the Redis store was closed")
        return None

    async def receive(self) -> bytes:
        """The next message; waits for it.

        Cancellation: no message is lost by it.
        """
        # The checkpoint comes first: after a message is taken, nothing may be cancelled.
        await trio.lowlevel.checkpoint()
        while (message := self.take()) is None:
            await self.wait_changed()
        return message


@final
class PubSub:
    """All subscriptions of one store."""

    def __init__(self, address: RedisAddress, **options: Any) -> None:
        self._transport = RedisTransport(address, on_push=self._on_push, on_connect=self._on_connect, **options)
        self._inboxes: dict[str, list[Inbox]] = {}
        self.run: Final = self._transport.run

    def close(self) -> None:
        """Tell every subscriber that no message will come any more."""
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.close()

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncGenerator[Inbox, None]:
        """Receive what is published on a channel; in force once entered.

        Raises:
            StoreUnavailableError: the server cannot be reached.
        """
        inbox = Inbox()
        inboxes = self._inboxes.setdefault(channel, [])
        inboxes.append(inbox)
        try:
            # Repeated for each subscriber: only the reply tells that the server has taken note.
            await self._transport.pipeline([_confirmed("SUBSCRIBE", channel)], repeatable=True)
            yield inbox
        finally:
            inboxes.remove(inbox)
            if not inboxes:
                del self._inboxes[channel]
                self._transport.submit_nowait(_confirmed("UNSUBSCRIBE", channel))

    def _on_connect(self, connection: Connection) -> None:
        for channel, inboxes in self._inboxes.items():
            connection.submit([_confirmed("SUBSCRIBE", channel)], Waiter(1))
            for inbox in inboxes:
                inbox.interrupted()

    def _on_push(self, push: Any) -> None:
        if push[0] == b"message":
            for inbox in self._inboxes.get(push[1].decode(), ()):
                inbox.put(push[2])


def _confirmed(command: str, channel: str) -> bytes:
    """A command of subscription, with a PING behind it: only that has a reply in its turn, the other a push."""
    return pack((command, channel)) + pack(("PING",))
