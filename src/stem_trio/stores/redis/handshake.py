"""From an address to a connection that is logged in: sentinels asked, protocol agreed on, user and database set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import hiredis
import redis.exceptions
import trio

from ...errors import ConfigurationError, StoreUnavailableError
from .connection import Argument, open_stream, pack
from .errors import reply_error, translate

if TYPE_CHECKING:
    from .address import RedisAddress

__all__ = ["connect"]

_NOTHING: Final = object()
_DEFAULT_USER: Final = "default"


async def connect(address: RedisAddress, *, timeout: float) -> trio.abc.Stream:
    """Open a stream on which commands can be sent.

    Args:
        address: where, and how to get in.
        timeout: seconds that all of it may take.

    Cancellation: nothing stays open.

    Raises:
        StoreUnavailableError: the server cannot be reached, or does not serve yet.
        ConfigurationError: the server refuses access, or what was agreed on cannot be used.
    """
    with trio.move_on_after(timeout):
        try:
            host, port = await _find_master(address) if address.sentinels else (address.host, address.port)
            stream = await open_stream(address, host, port)
            try:
                await _log_in(_Dialogue(stream), address)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except (OSError, trio.BrokenResourceError, hiredis.ProtocolError) as error:
            raise StoreUnavailableError(f"cannot connect to Redis at {address.label}: {error}") from error
        return stream
    raise StoreUnavailableError(f"cannot connect to Redis at {address.label} within {timeout:g} s")


class _Dialogue:
    """One command after the other, each with its reply: for the time before a connection is shared."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    async def call(self, *command: Argument) -> Any:
        """Send a command and return its reply. Raises redis-py's error for an error reply."""
        await self._stream.send_all(pack(command))
        while (value := self._reader.gets()) is _NOTHING:
            data = await self._stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError("the server closed the connection")
            self._reader.feed(bytes(data))
        if isinstance(value, hiredis.ReplyError):
            raise reply_error(str(value))
        return value


async def _log_in(dialogue: _Dialogue, address: RedisAddress) -> None:
    username, password = await _credentials(address)
    command: list[Argument] = ["HELLO", 3]
    if password is not None:
        command += ["AUTH", username or _DEFAULT_USER, password]
    if address.client_name is not None:
        command += ["SETNAME", address.client_name]
    try:
        await dialogue.call(*command)
        if address.db:
            await dialogue.call("SELECT", address.db)
    except redis.exceptions.RedisError as error:
        raise translate(error) from error


async def _credentials(address: RedisAddress) -> tuple[str | None, str | None]:
    if address.credentials is None:
        return address.username, address.password
    # A provider may ask a service over the network, with a blocking client.
    answer = await trio.to_thread.run_sync(address.credentials.get_credentials)
    if len(answer) == 1:
        return None, answer[0]
    if len(answer) == 2:
        return answer
    raise ConfigurationError("the credential provider must return (password,) or (user, password)")


async def _find_master(address: RedisAddress) -> tuple[str, int]:
    """Ask the sentinels, one after the other, where the master is."""
    problems: list[str] = []
    for host, port in address.sentinels:
        try:
            found = await _ask_sentinel(address, host, port)
        except (OSError, trio.BrokenResourceError, redis.exceptions.RedisError, hiredis.ProtocolError) as error:
            problems.append(f"{host}:{port}: {error}")
            continue
        if found is not None:
            return found
        problems.append(f"{host}:{port}: does not know the service")
    raise StoreUnavailableError(f"no sentinel knows the {address.label} ({'; '.join(problems)})")


async def _ask_sentinel(address: RedisAddress, host: str, port: int) -> tuple[str, int] | None:
    # One that hangs must leave time for the others.
    with trio.fail_after(2.0) if len(address.sentinels) > 1 else trio.CancelScope():
        stream = await open_stream(address, host, port)
        try:
            dialogue = _Dialogue(stream)
            if address.sentinel_password is not None:
                user = [address.sentinel_username] if address.sentinel_username else []
                await dialogue.call("AUTH", *user, address.sentinel_password)
            answer = await dialogue.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service or "")
        finally:
            await trio.aclose_forcefully(stream)
    return None if answer is None else (answer[0].decode(), int(answer[1]))
