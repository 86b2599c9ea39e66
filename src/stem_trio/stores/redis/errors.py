"""From what a Redis server answers, and how its connections fail, to this package's errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

from ...errors import ConfigurationError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ConnectionLostError",
    "NoScriptError",
    "NotServingError",
    "RedisReplyError",
    "ReplyError",
    "SharedConnectionError",
    "reply_error",
    "translate",
]


class ReplyError(Exception):
    """An error reply, as it came. Internal: callers get what `translate` makes of it, and find this as its cause.

    Args:
        text: the whole reply.

    Attributes:
        code: its kind as the server names it, that of the error within where a script has failed.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code: Final = _code(text)


@final
class NoScriptError(ReplyError):
    """The server does not know the script of this hash."""


@final
class NotServingError(ReplyError):
    """The server is not, or not yet, the one to send commands to. It has done nothing."""


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
    """The server refused a command for a reason that trying again does not mend; `__cause__` is its reply."""


@final
class SharedConnectionError(StoreError):
    """A command was refused because it would change, or hold up, a connection that others use too. It was not sent."""


_CLUSTER: Final = frozenset({"ASK", "CLUSTERDOWN", "CROSSSLOT", "MOVED", "TRYAGAIN"})
_AWAY: Final = frozenset({"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "UNBLOCKED"})
"""Answers of a server that is starting, failing over or busy: it did nothing, and will do it later."""
_ACCESS: Final = frozenset({"DENIED", "NOAUTH", "NOPERM", "WRONGPASS"})
_KINDS: Final[Mapping[str, type[ReplyError]]] = {
    "LOADING": NotServingError,
    "MASTERDOWN": NotServingError,
    "NOSCRIPT": NoScriptError,
    "READONLY": NotServingError,
}

# Before version 7, an error within a script is wrapped: "ERR Error running script (...): ...: -READONLY You can't ...".
_IN_SCRIPT: Final = re.compile(r"ERR Error running script .*: -(?P<error>[A-Z]+ .*)", re.DOTALL)
_TOO_MANY_CLIENTS: Final = "ERR max number of clients"


def reply_error(text: str) -> ReplyError:
    """The exception for an error reply."""
    return _KINDS.get(_code(text), ReplyError)(text)


def translate(error: ReplyError) -> Exception:
    """This package's error for an error reply; raise it from the original."""
    text = str(error)
    if error.code in _AWAY or text.startswith(_TOO_MANY_CLIENTS):
        return StoreUnavailableError(f"Redis does not serve just now: {text}")
    if error.code == "OOM":
        return StoreUnavailableError(f"Redis has no memory left: {text}")
    if error.code in _CLUSTER:
        return ConfigurationError(
            "this is a node of a Redis Cluster, which is not supported yet; use a single server, or one with Sentinel "
            f"(redis+sentinel://): {text}"
        )
    if error.code in _ACCESS:
        return ConfigurationError(f"Redis refuses access; check user, password and ACL rules: {text}")
    return RedisReplyError(f"Redis refused a command: {text}")


def _code(text: str) -> str:
    if wrapped := _IN_SCRIPT.match(text):
        text = wrapped["error"]
    return text.partition(" ")[0]
