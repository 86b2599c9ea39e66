"""What broker and backend on Redis have in common: being open, and the connections that this means."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from ..._groups import open_transparent_nursery
from ...abc import Store
from ...errors import StoreClosedError, StoreError
from .keys import Keyspace
from .pubsub import PubSub
from .transport import RedisTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from types import TracebackType
    from typing import Self

    from .address import RedisAddress
    from .connection import Argument
    from .script import Script

__all__ = ["DEFAULT_PREFIX", "RedisStore"]

DEFAULT_PREFIX: Final = "stem"


class RedisStore(Store):
    """A store on one Redis server; its connections live in a nursery of its own while it is open.

    Args:
        address: where the server is.
        prefix: what the names of all keys begin with.
        command_timeout: seconds for which a command waits for a connection, or for an answer.
        connect_timeout: seconds that one attempt to connect may take.
    """

    def __init__(self, address: RedisAddress, *, prefix: str, command_timeout: float, connect_timeout: float) -> None:
        self._address = address
        self._keyspace = Keyspace(prefix)
        self._options: dict[str, Any] = {
            "command_timeout": command_timeout,
            "patience": command_timeout,
            "connect_timeout": connect_timeout,
        }
        self._transport_in_use: RedisTransport | None = None
        self._pubsub_in_use: PubSub | None = None
        self._pubsub_lock = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self._block: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address.label} {self._keyspace.prefix}>"

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            StoreUnavailableError: the server cannot be reached.
            ConfigurationError: it refuses access.
            StoreError: the store is open already.
        """
        if self._nursery is not None:
            raise StoreError(f"{self!r} is open already: share it, or make another one")
        self._block = self._open()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        assert self._block is not None, "entered before"
        await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None, None]:
        try:
            async with open_transparent_nursery() as nursery:
                self._nursery = nursery
                transport = RedisTransport(self._address, **self._options)
                await nursery.start(transport.run)
                self._transport_in_use = transport
                yield
                nursery.cancel_scope.cancel()
        finally:
            if self._pubsub_in_use is not None:
                self._pubsub_in_use.close()
            self._nursery = self._transport_in_use = self._pubsub_in_use = None
            self._forget()

    def _forget(self) -> None:
        """The store is closed: let go of what belonged to its nursery."""

    @property
    def _transport(self) -> RedisTransport:
        if self._transport_in_use is None:
            raise StoreClosedError(f"{self!r} is used outside of its `async with` block")
        return self._transport_in_use

    def _open_nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise StoreClosedError(f"{self!r} is used outside of its `async with` block")
        return self._nursery

    async def _pubsub(self) -> PubSub:
        """The subscriptions; their connection is opened when first needed."""
        nursery = self._open_nursery()
        async with self._pubsub_lock:
            if self._pubsub_in_use is None:
                pubsub = PubSub(self._address, **self._options)
                await nursery.start(pubsub.run)
                self._pubsub_in_use = pubsub
            return self._pubsub_in_use

    async def _script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await script.call(self._transport, keys, args)
