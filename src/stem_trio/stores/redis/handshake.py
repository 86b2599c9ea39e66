"""From an address to a connection that is logged in: sentinels asked, protocol agreed on, user and database set."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final

import hiredis
import trio

from ...errors import ConfigurationError, StoreUnavailableError
from .connection import Argument, open_stream, pack
from .errors import RedisReplyError, ReplyError, reply_error, translate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .address import RedisAddress

__all__ = ["connect"]

_NOTHING: Final = object()
_DEFAULT_USER: Final = "default"
_OLDEST: Final = (6, 2)
_SENTINEL_TIMEOUT: Final = 2.0
"""Seconds that one of several sentinels may take at most."""


async def connect(address: RedisAddress, *, timeout: float) -> trio.abc.Stream:
    """Open a stream on which commands can be sent.

    Args:
        address: where, and how to get in.
        timeout: seconds that all of it may take.

    Cancellation: nothing stays open.

    Raises:
        StoreUnavailableError: the server cannot be reached, or does not serve: it is starting, or is a replica.
        ConfigurationError: the server refuses access, is not of a kind that can be used, or what was agreed on cannot.
    """
    with trio.move_on_after(timeout):
        try:
            host, port = await _find_master(address, timeout) if address.sentinels else (address.host, address.port)
            stream = await open_stream(address, host, port)
            try:
                await _log_in(stream, address)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except (OSError, trio.BrokenResourceError, hiredis.ProtocolError) as error:
            if _is_about_certificates(error.__cause__):
                raise ConfigurationError(
                    f"TLS with Redis at {address.label} is refused; check ca_certs, the name of the host and the "
                    f"client's certificate: {error.__cause__}"
                ) from error
            raise StoreUnavailableError(f"cannot connect to Redis at {address.label}: {_reason(error)}") from error
        return stream
    raise StoreUnavailableError(f"cannot connect to Redis at {address.label} within {timeout:g} s")


def _reason(error: Exception) -> str:
    """What an error says; trio's own about TLS say it in their cause."""
    return str(error) or str(error.__cause__ or "") or type(error).__name__


def _is_about_certificates(error: BaseException | None) -> bool:
    # With TLS 1.3 a refused client certificate comes as an alert, after the handshake.
    return isinstance(error, ssl.SSLError) and ("CERTIFICATE" in (error.reason or "") or "_CA" in (error.reason or ""))


class _Dialogue:
    """One command after the other, each with its reply: for the time before a connection is shared."""

    def __init__(self, stream: trio.abc.Stream, secrets: Sequence[str | None]) -> None:
        self._stream = stream
        self._secrets = [secret for secret in secrets if secret]
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    async def call(self, *command: Argument) -> Any:
        """Send a command and return its reply. Raises a `ReplyError` for an error reply, secrets taken out."""
        await self._stream.send_all(pack(command))
        while (value := self._reader.gets()) is _NOTHING:
            data = await self._stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError("the server closed the connection")
            self._reader.feed(bytes(data))
        if isinstance(value, hiredis.ReplyError):
            text = str(value)
            # A server repeats the arguments of a command that it does not know.
            for secret in self._secrets:
                text = text.replace(secret, "***")
            raise reply_error(text)
        return value


async def _log_in(stream: trio.abc.Stream, address: RedisAddress) -> None:
    username, password = await _credentials(address)
    dialogue = _Dialogue(stream, [password])
    command: list[Argument] = ["HELLO", 3]
    if password is not None:
        command += ["AUTH", username or _DEFAULT_USER, password]
    if address.client_name is not None:
        command += ["SETNAME", address.client_name]
    try:
        _check_server(await dialogue.call(*command), address)
        if address.db:
            await dialogue.call("SELECT", address.db)
        # HELLO is answered while data are still being loaded, this is not.
        await dialogue.call("PING")
    except ReplyError as error:
        text = str(error)
        if text.startswith("NOPROTO") or text.lower().startswith("err unknown command"):
            raise ConfigurationError(
                f"the server at {address.label} does not speak RESP3 (HELLO 3); Redis 6.2 or later, or Valkey, is "
                "needed"
            ) from error
        problem = translate(error)
        if isinstance(problem, RedisReplyError):
            problem = ConfigurationError(f"Redis at {address.label} refuses the connection: {text}")
        raise problem from error


def _check_server(hello: Any, address: RedisAddress) -> None:
    """Whether what answers is a server that can be used, and the one to use."""
    about: dict[bytes, Any] = hello if isinstance(hello, dict) else {}
    mode = about.get(b"mode")
    if mode == b"cluster":
        raise ConfigurationError(
            f"the server at {address.label} is a node of a Redis Cluster, which is not supported yet; use a single "
            "server, or one with Sentinel (redis+sentinel://)"
        )
    if mode == b"sentinel":
        raise ConfigurationError(
            f"the server at {address.label} is a sentinel; write redis+sentinel://host:port/service to be led to its "
            "master"
        )
    version = re.match(rb"(\d+)\.(\d+)", about.get(b"version", b""))
    if about.get(b"server") == b"redis" and version and (int(version[1]), int(version[2])) < _OLDEST:
        raise ConfigurationError(
            f"the server at {address.label} is Redis {version[0].decode()}; Redis 6.2 or later, or Valkey, is needed"
        )
    if about.get(b"role") == b"replica":
        # For a while, when a fail-over is under way; the next attempt may be led elsewhere.
        raise StoreUnavailableError(f"the Redis server at {address.label} is a replica, which takes no writes")


async def _credentials(address: RedisAddress) -> tuple[str | None, str | None]:
    if address.credentials is None:
        return address.username, address.password
    try:
        # A provider may ask a service over the network, with a blocking client. One that hangs is left behind.
        answer: Any = await trio.to_thread.run_sync(address.credentials.get_credentials, abandon_on_cancel=True)
    except Exception as error:  # it is the application's, and what it asks may be out of reach just now
        raise StoreUnavailableError(
            f"cannot connect to Redis at {address.label}: the credential provider failed ({type(error).__name__})"
        ) from error
    match answer:
        case (str() as password,):
            return None, password or None
        case (str() as username, str() as password):
            return username or None, password
        case _:
            raise ConfigurationError("the credential provider must return (password,) or (user, password)")


async def _find_master(address: RedisAddress, timeout: float) -> tuple[str, int]:
    """Ask the sentinels, one after the other, where the master is."""
    # One that hangs must leave time for the others, and for the master.
    each = min(_SENTINEL_TIMEOUT, timeout / (len(address.sentinels) + 1))
    problems: list[str] = []
    lasting = True  # whether none of the problems is one that may pass
    for host, port in address.sentinels:
        try:
            found = await _ask_sentinel(address, host, port, each)
        except ReplyError as error:
            problem = translate(error)
            lasting = lasting and not isinstance(problem, StoreUnavailableError)
            problems.append(f"{host}:{port}: {problem}")
            continue
        except (OSError, trio.BrokenResourceError, hiredis.ProtocolError) as error:
            lasting = lasting and _is_about_certificates(error.__cause__)
            problems.append(f"{host}:{port}: {_reason(error)}")
            continue
        except trio.TooSlowError:
            lasting = False
            problems.append(f"{host}:{port}: no answer within {each:g} s")
            continue
        if found is not None:
            return found
        problems.append(f"{host}:{port}: does not know the service")
    text = f"no sentinel tells the {address.label} ({'; '.join(problems)})"
    if lasting:
        raise ConfigurationError(f"{text}; check the name of the service, and user and password at the sentinels")
    raise StoreUnavailableError(text)


async def _ask_sentinel(address: RedisAddress, host: str, port: int, timeout: float) -> tuple[str, int] | None:
    with trio.fail_after(timeout) if len(address.sentinels) > 1 else trio.CancelScope():
        stream = await open_stream(address, host, port)
        try:
            dialogue = _Dialogue(stream, [address.sentinel_password])
            if address.sentinel_password is not None:
                user = [address.sentinel_username] if address.sentinel_username else []
                await dialogue.call("AUTH", *user, address.sentinel_password)
            answer = await dialogue.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service or "")
        finally:
            await trio.aclose_forcefully(stream)
    return None if answer is None else (answer[0].decode(), int(answer[1]))
