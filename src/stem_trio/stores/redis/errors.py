"""From what a Redis server answers, and how its connections fail, to this package's errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

import redis.exceptions

from ...errors import ConfigurationError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NOT_SERVING", "ConnectionLostError", "RedisReplyError", "SharedConnectionError", "reply_error", "translate"]


@final
class ConnectionLostError(Exception):
    """The connection went away before the answer came. Internal: callers get a `StoreUnavailableError`.

    Attributes:
        sent: whether the command had begun to be sent, so that it may have been carried out.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


@final
class RedisReplyError(StoreError):
    """The server refused a command for a reason that trying again does not mend; `__cause__` is redis-py's error."""


@final
class SharedConnectionError(StoreError):
    """A command was refused because it would change, or hold up, a connection that others use too. It was not sent."""


_CLUSTER: Final = frozenset({"ASK", "CLUSTERDOWN", "CROSSSLOT", "MOVED", "TRYAGAIN"})
_AWAY: Final = frozenset({"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "UNBLOCKED"})
"""Answers of a server that is starting, failing over or busy: it did nothing, and will do it later."""
_KINDS: Final[Mapping[str, type[redis.exceptions.RedisError]]] = {
    **dict.fromkeys(_CLUSTER, redis.exceptions.ClusterError),
    "CLUSTERDOWN": redis.exceptions.ClusterDownError,
    "DENIED": redis.exceptions.AuthenticationError,
    "EXECABORT": redis.exceptions.ExecAbortError,
    "LOADING": redis.exceptions.BusyLoadingError,
    "MASTERDOWN": redis.exceptions.MasterDownError,
    "NOAUTH": redis.exceptions.AuthenticationError,
    "NOPERM": redis.exceptions.NoPermissionError,
    "NOSCRIPT": redis.exceptions.NoScriptError,
    "OOM": redis.exceptions.OutOfMemoryError,
    "READONLY": redis.exceptions.ReadOnlyError,
    "WRONGPASS": redis.exceptions.AuthenticationError,
}
NOT_SERVING: Final = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.MasterDownError,
)
"""Errors of a server that is not, or not yet, the one to send commands to. It has done nothing."""

# Before version 7, an error within a script is wrapped: "ERR Error running script (...): ...: -READONLY You can't ...".
_IN_SCRIPT: Final = re.compile(r"ERR Error running script .*: -(?P<error>[A-Z]+ .*)", re.DOTALL)
_TOO_MANY_CLIENTS: Final = "ERR max number of clients"


def reply_error(text: str) -> redis.exceptions.RedisError:
    """redis-py's exception for an error reply."""
    return _KINDS.get(_code(text), redis.exceptions.ResponseError)(text)


def translate(error: redis.exceptions.RedisError) -> Exception:
    """This package's error for an error reply; raise it from the original."""
    text = str(error)
    code = _code(text)
    if code in _AWAY or text.startswith(_TOO_MANY_CLIENTS):
        return StoreUnavailableError(f"Redis does not serve just now: {text}")
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return StoreUnavailableError(f"Redis has no memory left: {text}")
    if code in _CLUSTER:
        return ConfigurationError(
            "this is a node of a Redis Cluster, which is not supported yet; use a single server, or one with Sentinel "
            f"(redis+sentinel://): {text}"
        )
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return ConfigurationError(f"Redis refuses access; check user, password and ACL rules: {text}")
    return RedisReplyError(f"Redis refused a command: {text}")


def _code(text: str) -> str:
    if wrapped := _IN_SCRIPT.match(text):
        text = wrapped["error"]
    return text.partition(" ")[0]
