"""Stores on Redis and Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError

try:
    from .address import Tls
    from .backend import RedisResultBackend
    from .broker import RedisBroker
    from .errors import RedisReplyError, SharedConnectionError
except ModuleNotFoundError as _error:
    if _error.name != "hiredis":
        raise
    raise ConfigurationError('the Redis store needs hiredis; pip install "stem-trio[redis]"') from _error

if TYPE_CHECKING:
    from .commands import RedisCommands

__all__ = [
    "RedisBroker",
    "RedisCommands",
    "RedisReplyError",
    "RedisResultBackend",
    "RedisStreamsBroker",
    "SharedConnectionError",
    "Tls",
]

RedisStreamsBroker = RedisBroker
"""`RedisBroker` by the name that it has in Stem."""
# The name is all: this broker keeps its tasks in sorted sets and not in streams, which know neither priority nor delay.


def __getattr__(name: str) -> Any:
    """`RedisCommands`, when it is first asked for: it alone needs redis-py, which takes 8 MiB and 0.1 s."""
    if name != "RedisCommands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .commands import RedisCommands  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise ConfigurationError('RedisCommands needs redis; pip install "stem-trio[redis]"') from error
    globals()[name] = RedisCommands
    return RedisCommands
