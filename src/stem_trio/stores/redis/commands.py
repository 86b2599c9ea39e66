"""Every Redis command, on trio: redis-py's commands, encoding and replies, over the connection of this package."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

import redis
import redis.exceptions
from redis.commands import READ_COMMANDS, AsyncCoreCommands

from ..._groups import open_transparent_nursery
from ..._validate import duration
from .address import parse_address
from .connection import pack
from .errors import ReplyError, SharedConnectionError
from .transport import RedisTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from redis.credentials import CredentialProvider

    from .address import Tls

__all__ = ["RedisCommands"]

_SUBSCRIBES: Final = "it turns the connection to messages; use `Broker.subscribe`, or a client of your own"
_TRANSACTS: Final = "commands of others would get in between; use a script (`eval`, `register_script`)"
_BLOCKS: Final = "it holds up everybody's commands; use it without blocking, or a client of your own"
_CHANGES: Final = "it changes the connection for everybody"
_REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "SYNC", "PSYNC", "REPLCONF"), _SUBSCRIBES),
    **dict.fromkeys(("UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"), _SUBSCRIBES),
    **dict.fromkeys(("MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"), _TRANSACTS),
    **dict.fromkeys(("BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"), _BLOCKS),
    **dict.fromkeys(("WAIT", "WAITAOF"), _BLOCKS),
    **dict.fromkeys(("AUTH", "HELLO", "SELECT"), f"{_CHANGES}; put it into the URL"),
    **dict.fromkeys(("ASKING", "QUIT", "READONLY", "READWRITE", "RESET"), _CHANGES),
    "CLIENT CACHING": _CHANGES,
    "CLIENT NO-EVICT": _CHANGES,
    "CLIENT NO-TOUCH": _CHANGES,
    "CLIENT REPLY": _CHANGES,
    "CLIENT SETINFO": _CHANGES,
    "CLIENT SETNAME": f"{_CHANGES}; use client_name",
    "CLIENT TRACKING": _CHANGES,
    "SCRIPT DEBUG": _CHANGES,
}
_MAY_BLOCK: Final = ("XREAD", "XREADGROUP")
_KINDS: Final[Mapping[str, type[redis.exceptions.RedisError]]] = {
    **dict.fromkeys(("ASK", "CROSSSLOT", "MOVED", "TRYAGAIN"), redis.exceptions.ClusterError),
    **dict.fromkeys(("DENIED", "NOAUTH", "WRONGPASS"), redis.exceptions.AuthenticationError),
    "CLUSTERDOWN": redis.exceptions.ClusterDownError,
    "EXECABORT": redis.exceptions.ExecAbortError,
    "NOPERM": redis.exceptions.NoPermissionError,
    "NOSCRIPT": redis.exceptions.NoScriptError,
    "OOM": redis.exceptions.OutOfMemoryError,
}


def _redis_py_error(reply: ReplyError) -> redis.exceptions.RedisError:
    """redis-py's exception for an error reply. Not of a server that does not serve: such replies do not come here."""
    return _KINDS.get(reply.code, redis.exceptions.ResponseError)(str(reply))


class _Pool:
    """What redis-py's command classes look for in a connection pool: how to encode."""

    def __init__(self, template: redis.Redis) -> None:
        self._encoder = template.get_encoder()
        self.connection_kwargs: Final = template.get_connection_kwargs()

    def get_encoder(self) -> Any:
        """The encoder."""
        return self._encoder


@final
class RedisCommands(AsyncCoreCommands):
    """Every Redis command as a method, named, typed and answered as in redis-py for RESP3 (``protocol=3``).

    Commands of concurrent tasks share one connection, so what would change or hold up that is refused: subscriptions,
    transactions, blocking reads, SELECT, CLIENT REPLY and their like. Commands that only read are repeated when the
    connection is lost under way.

    Args:
        transport: where commands go; runs for as long as this is used.
        decode_responses: whether text is returned as `str`, read as UTF-8, and not as `bytes`.
        timeout: seconds (or timedelta) that one command may take; None for the transport's `command_timeout`.

    Cancellation: of any command: it may or may not be carried out; others are not disturbed.

    Raises:
        InvalidOptionError: the timeout is not a length of time.
    """

    _is_async_client: Literal[True] = True  # tells type checkers which replies the methods return
    _event_dispatcher: Any = None  # redis-py's types want one; its commands use none

    def __init__(
        self, transport: RedisTransport, *, decode_responses: bool = False, timeout: float | timedelta | None = None
    ) -> None:
        # Connects to nothing. It knows, in every version of redis-py, what replies are to be made into.
        template = redis.Redis(protocol=3, decode_responses=decode_responses)
        self._transport = transport
        self._decodes = decode_responses
        self._timeout = None if timeout is None else duration("timeout", timeout, positive=True)
        self.connection_pool: Final = _Pool(template)
        self.response_callbacks: Final = template.response_callbacks

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._transport.address.label}>"

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        db: int | None = None,
        credentials: CredentialProvider | None = None,
        tls: Tls | None = None,
        client_name: str | None = None,
        decode_responses: bool = False,
        timeout: float | timedelta = 10.0,
        connect_timeout: float | timedelta = 5.0,
    ) -> AbstractAsyncContextManager[RedisCommands]:
        """Commands over a connection of their own, for an ``async with`` block.

        Args:
            url: as `RedisBroker.connect`.
            db: number of the database, over the URL's.
            credentials: asks for user and password at each connection.
            tls: how to talk TLS, over the URL's options.
            client_name: what the server shows the connection as.
            decode_responses: see the class.
            timeout: see the class; also how long to wait for a connection.
            connect_timeout: seconds that one attempt to connect may take.

        Raises:
            ConfigurationError: the URL cannot be read, or the server refuses access.
            InvalidOptionError: an option is out of its range.
            StoreUnavailableError: the server cannot be reached.
        """
        address = parse_address(url, db=db, credentials=credentials, tls=tls, client_name=client_name)
        seconds = duration("timeout", timeout, positive=True)
        transport = RedisTransport(
            address,
            command_timeout=seconds,
            patience=seconds,
            connect_timeout=duration("connect_timeout", connect_timeout, positive=True),
        )
        return cls._connect(transport, cls(transport, decode_responses=decode_responses, timeout=seconds))

    @staticmethod
    @asynccontextmanager
    async def _connect(transport: RedisTransport, commands: RedisCommands) -> AsyncGenerator[RedisCommands, None]:
        async with open_transparent_nursery() as nursery:
            await nursery.start(transport.run)
            yield commands
            nursery.cancel_scope.cancel()

    def get_encoder(self) -> Any:
        """What encodes arguments; redis-py's commands ask for it."""
        return self.connection_pool.get_encoder()

    def get_connection_kwargs(self) -> dict[str, Any]:
        """Options of the connection; redis-py's commands ask for them."""
        return self.connection_pool.connection_kwargs

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send any command, and return its reply; what all the methods come down to.

        Args:
            args: name of the command, then its arguments.
            options: for redis-py's treatment of the reply.

        Raises:
            SharedConnectionError: the command is refused here; it was not sent.
            StoreUnavailableError: see `RedisTransport.pipeline`.
            redis.exceptions.RedisError: the server's refusal, as redis-py types it.
        """
        name = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
        words = [*map(str.encode, name.split()), *map(self._encode, args[1:])]
        self._refuse_unshareable(words)
        [reply] = await self._transport.pipeline(
            [pack(tuple(words))], repeatable=name.upper() in READ_COMMANDS, timeout=self._timeout
        )
        empty = "EMPTY_RESPONSE" in options
        if isinstance(reply, ReplyError):
            error = _redis_py_error(reply)
            if empty and isinstance(error, redis.exceptions.ResponseError):
                return options["EMPTY_RESPONSE"]
            raise error
        if self._decodes and "NEVER_DECODE" not in options:
            reply = self._decode(reply)
        for internal in ("EMPTY_RESPONSE", "NEVER_DECODE", "keys"):
            options.pop(internal, None)
        callback: Any = cast("Any", self.response_callbacks).get(name)
        return reply if callback is None else callback(reply, **options)

    def _encode(self, value: Any) -> bytes:
        return bytes(self.get_encoder().encode(value))

    def _decode(self, value: Any) -> Any:
        match value:
            case bytes():
                return self.get_encoder().decode(value)
            case list():
                return [self._decode(item) for item in value]
            case set():
                return {self._decode(item) for item in value}
            case dict():
                return {self._decode(key): self._decode(item) for key, item in value.items()}
            case _:
                return value

    @staticmethod
    def _refuse_unshareable(words: list[bytes]) -> None:
        """Raise if the command would change or hold up the connection."""
        first = words[0].decode("ascii", "replace").upper()
        second = words[1].decode("ascii", "replace").upper() if len(words) > 1 else ""
        for name in (first, f"{first} {second}"):
            if name in _REFUSED:
                raise SharedConnectionError(f"{name} cannot be used on a shared connection: {_REFUSED[name]}")
        if first in _MAY_BLOCK:
            options = [word.upper() for word in words]
            # What follows STREAMS are names, of which one may be BLOCK.
            end = options.index(b"STREAMS") if b"STREAMS" in options else len(options)
            if b"BLOCK" in options[:end]:
                raise SharedConnectionError(f"{first} cannot be used with BLOCK on a shared connection: {_BLOCKS}")
