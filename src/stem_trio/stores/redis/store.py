"""What broker and backend on Redis have in common: being open, and the connections that this means."""

from __future__ import annotations

import logging
import re
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from ..._groups import open_transparent_nursery
from ...abc import Store
from ...errors import ConfigurationError, StoreClosedError, StoreError, StoreUnavailableError
from .errors import RedisReplyError
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

_POLICY: Final = re.compile(rb"^maxmemory_policy:(\S+)", re.MULTILINE)

_logger = logging.getLogger(__name__)


class RedisStore(Store):
    """A store on one Redis server; its connections live in a nursery of its own while it is open.

    Args:
        address: where the server is.
        prefix: what the names of all keys begin with.
        command_timeout: seconds for which a command waits for a connection, or for an answer.
        connect_timeout: seconds that one attempt to connect may take.
    """

    def __init__(self, address: RedisAddress, *, prefix: str, command_timeout: float, connect_timeout: float) -> None:
        self.address = address
        self.keyspace = Keyspace(prefix)
        self._command_timeout = command_timeout
        self._options: dict[str, Any] = {
            "command_timeout": command_timeout,
            # With the time that it takes to notice, less than the timeout.
            "patience": command_timeout * 0.75,
            "connect_timeout": connect_timeout,
        }
        self._transport_in_use: RedisTransport | None = None
        self._pubsub_in_use: PubSub | None = None
        self._pubsub_lock = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self._block: AbstractAsyncContextManager[None] | None = None
        self._lender: RedisStore | None = None

    def borrow(self, lender: RedisStore) -> None:
        """Use the connections of another store, if this one's would be the same. It must be open whenever this is."""
        if lender.address == self.address and lender._options == self._options:
            self._lender = lender

    @property
    def answers_within(self) -> float:
        """See `Store.answers_within`: the command timeout."""
        return self._command_timeout

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address.label} {self.keyspace.prefix}>"

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
                if self._lender is not None:
                    await trio.lowlevel.checkpoint()
                    transport = self._lender._transport  # noqa: SLF001 - of this very class
                else:
                    transport = RedisTransport(self.address, **self._options)
                    await nursery.start(transport.run)
                    await _warn_of_eviction(transport)
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
        if self._lender is not None:
            return await self._lender._pubsub()  # noqa: SLF001 - of this very class
        async with self._pubsub_lock:
            if self._pubsub_in_use is None:
                pubsub = PubSub(self.address, **self._options)
                await nursery.start(pubsub.run)
                self._pubsub_in_use = pubsub
            return self._pubsub_in_use

    async def _script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await script.call(self._transport, keys, args)


async def _warn_of_eviction(transport: RedisTransport) -> None:
    """Log what a server that throws keys away when its memory is full would do to tasks. Where it tells."""
    try:
        info = await transport.call("INFO", "memory", repeatable=True)
    except (RedisReplyError, ConfigurationError, StoreUnavailableError) as error:
        # Not every user may ask, nor every service tell; and an outage is met by the first command that matters.
        _logger.debug("%s does not tell its eviction policy: %s", transport.address.label, error)
        return
    found = _POLICY.search(info) if isinstance(info, bytes) else None
    policy = "noeviction" if found is None else found[1].decode("ascii", "replace")
    if policy != "noeviction":
        _logger.warning(
            "Redis at %s has maxmemory-policy %s: when its memory is full, it deletes %s. Set it to noeviction, under "
            "which publishing fails then, and nothing is lost",
            transport.address.label,
            policy,
            "tasks" if policy.startswith("allkeys") else "statuses and results before their time",
        )
