"""From what a Redis server answers, and how its connections fail, to this package's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import redis.exceptions

from ...errors import ConfigurationError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConnectionLostError", "RedisReplyError", "reply_error", "translate"]


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


_KINDS: Final[Mapping[str, type[redis.exceptions.RedisError]]] = {
    "ASK": redis.exceptions.ClusterError,
    "BUSY": redis.exceptions.ResponseError,
    "CLUSTERDOWN": redis.exceptions.ClusterDownError,
    "EXECABORT": redis.exceptions.ExecAbortError,
    "LOADING": redis.exceptions.BusyLoadingError,
    "MASTERDOWN": redis.exceptions.MasterDownError,
    "MOVED": redis.exceptions.ClusterError,
    "NOAUTH": redis.exceptions.AuthenticationError,
    "NOPERM": redis.exceptions.NoPermissionError,
    "NOSCRIPT": redis.exceptions.NoScriptError,
    "OOM": redis.exceptions.OutOfMemoryError,
    "READONLY": redis.exceptions.ReadOnlyError,
    "TRYAGAIN": redis.exceptions.ResponseError,
    "WRONGPASS": redis.exceptions.AuthenticationError,
}
_AWAY: Final = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN", "UNBLOCKED"})
"""Answers of a server that is starting, failing over or busy: it did nothing, and will do it later."""


def reply_error(text: str) -> redis.exceptions.RedisError:
    """redis-py's exception for an error reply."""
    kind = _KINDS.get(text.partition(" ")[0], redis.exceptions.ResponseError)
    return kind(text)


def translate(error: redis.exceptions.RedisError) -> Exception:
    """This package's error for an error reply; raise it from the original."""
    text = str(error)
    code = text.partition(" ")[0]
    if code in _AWAY:
        return StoreUnavailableError(f"Redis does not serve just now: {text}")
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return StoreUnavailableError(f"Redis has no memory left: {text}")
    if code in ("MOVED", "ASK"):
        return ConfigurationError("this is a node of a Redis Cluster, which is not supported yet; use a single server")
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return ConfigurationError(f"Redis refuses access; check user, password and ACL rules: {text}")
    return RedisReplyError(f"Redis refused a command: {text}")
