"""Subscriptions: one connection for all of them, renewed after each reconnection."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ..._groups import open_transparent_nursery
from ...errors import StoreClosedError, StoreUnavailableError
from .connection import pack
from .errors import ReplyError, translate
from .transport import RedisTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from .address import RedisAddress
    from .connection import Connection
    from .errors import ConnectionLostError

__all__ = ["Inbox", "PubSub"]

_BUFFER: Final = 1024

_logger = logging.getLogger(__name__)


@final
class Inbox:
    """Messages of one channel for one subscriber; the oldest give way when it lags.

    Attributes:
        gaps: how often the subscription was renewed since it began: messages may have been missed.
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
class _Request:
    """A change of subscriptions, and what came of it.

    Args:
        channel: what is subscribed to, or not any more; None for a mere sign of life.
        missing: who may have missed messages by the time that it is dealt with.
    """

    def __init__(self, channel: str | None, missing: Sequence[Inbox] = ()) -> None:
        self.channel = channel
        self.missing = missing
        self.over = trio.Event()
        self.lost = False
        self.refusal: ReplyError | None = None


@final
class _Requests:
    """Takes the replies of one connection that has nothing but subscriptions.

    The server confirms a subscription by a push, which has no turn. So each request has a PING behind it, whose reply
    tells that the request was dealt with. One that is refused, by ACL rules for instance, is answered by an error in
    its turn, and its PING comes after that: two replies in place of one.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._requests: deque[_Request] = deque()

    def submit(self, command: str, channel: str, missing: Sequence[Inbox] = ()) -> _Request:
        """Send a request."""
        request = _Request(channel, missing)
        self._requests.append(request)
        self._connection.submit([pack((command, channel)) + pack(("PING",))], self)
        return request

    def probe(self) -> None:
        """Ask for a sign of life. A connection on which nothing is asked can be dead without anybody noticing."""
        self._requests.append(_Request(None))
        self._connection.submit([pack(("PING",))], self)

    def put(self, value: Any) -> None:
        """A reply to the request that is next."""
        request = self._requests[0]
        refused = isinstance(value, ReplyError) and request.channel is not None
        if refused and request.refusal is None:
            request.refusal = value
            _logger.warning("Redis refused a change of the subscription to %s: %s", request.channel, value)
            # No bytes, and a place for one reply more: all that is in the queue is for this object.
            self._connection.submit([b""], self)
            return
        self._requests.popleft()
        request.over.set()
        # Only now: what they look up before the server has taken note may change in between, and nobody tells them.
        for inbox in request.missing:
            inbox.interrupted()

    def fail(self, error: ConnectionLostError) -> None:  # noqa: ARG002 - the next connection subscribes again
        """The connection has gone."""
        while self._requests:
            request = self._requests.popleft()
            request.lost = True
            request.over.set()


@final
class PubSub:
    """All subscriptions of one store.

    Args:
        address: where the server is.
        command_timeout: see `RedisTransport`.
        patience: see `RedisTransport`; also how often a sign of life is asked for.
        options: more for the transport.
    """

    def __init__(
        self, address: RedisAddress, *, command_timeout: float, patience: float = 10.0, **options: Any
    ) -> None:
        self._command_timeout = command_timeout
        self._patience = patience
        self._transport = RedisTransport(
            address,
            command_timeout=command_timeout,
            patience=patience,
            on_push=self._on_push,
            on_connect=self._on_connect,
            **options,
        )
        self._requests: _Requests | None = None
        self._inboxes: dict[str, list[Inbox]] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the connection up, for ever. Started once there is one.

        Cancellation, and what is raised: as of `RedisTransport.run`.
        """
        async with open_transparent_nursery() as nursery:
            await nursery.start(self._transport.run)
            task_status.started()
            while True:
                await trio.sleep(self._patience)
                if self._requests is not None:
                    self._requests.probe()

    def close(self) -> None:
        """Tell every subscriber that no message will come any more."""
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.close()

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncGenerator[Inbox, None]:
        """Receive what is published on a channel; in force once entered.

        Cancellation: the subscription ends with the block.

        Raises:
            StoreUnavailableError: the server cannot be reached.
            ConfigurationError: the user may not subscribe to the channel.
            StoreClosedError: the store was closed.
        """
        inbox = Inbox()
        inboxes = self._inboxes.setdefault(channel, [])
        inboxes.append(inbox)
        try:
            # Repeated for each subscriber: only the reply tells that the server has taken note.
            await self._subscribe(channel)
            yield inbox
        finally:
            inboxes.remove(inbox)
            if not inboxes:
                del self._inboxes[channel]
                if self._requests is not None:
                    self._requests.submit("UNSUBSCRIBE", channel)

    async def _subscribe(self, channel: str) -> None:
        with trio.move_on_after(self._command_timeout):
            while True:
                await self._transport.connected()
                assert self._requests is not None, "set with the first connection"
                request = self._requests.submit("SUBSCRIBE", channel)
                await request.over.wait()
                if request.refusal is not None:
                    raise translate(request.refusal) from request.refusal
                if not request.lost:
                    return
        raise StoreUnavailableError(
            f"no subscription at Redis at {self._transport.address.label} within {self._command_timeout:g} s"
        )

    def _on_connect(self, connection: Connection) -> None:
        self._requests = _Requests(connection)
        for channel, inboxes in self._inboxes.items():
            self._requests.submit("SUBSCRIBE", channel, tuple(inboxes))

    def _on_push(self, push: Any) -> None:
        if push[0] == b"message":
            for inbox in self._inboxes.get(push[1].decode(), ()):
                inbox.put(push[2])
