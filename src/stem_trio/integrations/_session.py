"""A client that is open on trio, and the calls to it: the half of a host that is on trio, whatever its other side.

Calls run wherever the host starts them. The session knows the scope of each, so that closing reaches all of them.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar, final

import trio

from ..client import StemClient
from ..errors import ConfigurationError, StoreClosedError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ClientSource", "ExcInfo", "Session", "check_source", "is_cancellation"]

T = TypeVar("T")

ClientSource = StemClient | Callable[[], StemClient]
"""A client that is not open, or a function that makes one; it is called on trio, each time that the host is opened."""

ExcInfo = tuple["type[BaseException] | None", "BaseException | None", "TracebackType | None"]


def check_source(source: ClientSource) -> ClientSource:
    """Refuse at construction what could not be opened later.

    Raises:
        ConfigurationError: it is neither a client nor a function.
    """
    if not isinstance(source, StemClient) and not callable(source):
        raise ConfigurationError(f"give a StemClient, or a function that makes one, not {type(source).__name__}")
    return source


def is_cancellation(error: BaseException) -> bool:
    """Whether this is trio's cancellation, alone or in a group, and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


class _State(enum.Enum):
    OPENING = enum.auto()
    OPEN = enum.auto()
    CLOSING = enum.auto()


@final
class Session:
    """One stay of a client within its ``async with`` block, from `run` to its return.

    Args:
        source: the client.
        owner: what the client's user calls it, for messages.
    """

    def __init__(self, source: ClientSource, owner: str) -> None:
        self._source = source
        self._owner = owner
        self._client: StemClient | None = None
        self._state = _State.OPENING
        self._failure: BaseException | None = None
        self._leave = trio.Event()
        self._reason: ExcInfo = (None, None, None)
        self._scopes: Final[set[trio.CancelScope]] = set()
        self._no_calls: trio.Event | None = None

    @property
    def client(self) -> StemClient:
        """The client, open.

        Raises:
            StoreClosedError: it is not.
        """
        self.check_open()
        assert self._client is not None
        return self._client

    @property
    def closing(self) -> bool:
        """Whether it is open no more."""
        return self._state is _State.CLOSING

    def check_open(self) -> None:
        """Raise StoreClosedError unless the client is open."""
        if self._state is not _State.OPEN:
            raise self.closed_error()

    def fail(self, error: BaseException) -> None:
        """Take it that `run` will never end, for what its host has failed with."""
        self._failure = error
        self._state = _State.CLOSING

    def closed_error(self) -> StoreClosedError:
        """Why a call cannot be made, or did not end by itself."""
        if self._state is _State.OPENING:
            return StoreClosedError(f"the {self._owner} is being opened; use it within its block")
        if self._failure is None:
            return StoreClosedError(
                f"the {self._owner} has been closed; whether a call under way took effect is unknown"
            )
        error = StoreClosedError(
            f"the stores of the {self._owner} have failed ({type(self._failure).__name__}): leave its block, whose end "
            "raises what has happened, and open a new one"
        )
        error.__cause__ = self._failure
        return error

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Let `run` end; the client is told what its block has ended with."""
        self._reason = (kind, error, tb)
        self._leave.set()

    async def run(self, opened: Callable[[], object]) -> None:
        """Open the client, call `opened`, and close the client after `leave`, with every call ended before.

        Raises:
            BaseException: what opening or closing the client has raised, or what has broken it in between.

        Cancellation: closes the client; calls are cancelled, and end in their own time.
        """
        try:
            client = self._source if isinstance(self._source, StemClient) else self._source()
            await client.__aenter__()
            try:
                self._client = client
                self._state = _State.OPEN
                opened()
                await self._leave.wait()
                self._state = _State.CLOSING
                self._cancel_calls()
                if self._scopes:
                    self._no_calls = trio.Event()
                    await self._no_calls.wait()
            except BaseException as error:
                self._state = _State.CLOSING
                await client.__aexit__(type(error), error, error.__traceback__)
                raise
            await client.__aexit__(*self._reason)
        except BaseException as error:
            if error is not self._reason[1] and not is_cancellation(error):
                self._failure = error
            raise
        finally:
            self._state = _State.CLOSING
            self._cancel_calls()

    def _cancel_calls(self) -> None:
        for scope in self._scopes:
            scope.cancel()

    async def call(self, function: Callable[[StemClient], Awaitable[T]], scope: trio.CancelScope) -> T | None:
        """Call a function with the client.

        Args:
            function: the function.
            scope: where it runs. The host may cancel it, before or during the call.

        Returns:
            What the function returned; None when the host has cancelled it.

        Raises:
            StoreClosedError: the client is not open, or was closed during the call.
            BaseException: what the function raised.
        """
        if scope.cancel_called:
            return None
        client = self.client
        self._scopes.add(scope)
        try:
            with scope:
                return await function(client)
        finally:
            self._scopes.discard(scope)
            if self._no_calls is not None and not self._scopes:
                self._no_calls.set()
        if self._state is not _State.OPEN:
            raise self.closed_error()
        return None
