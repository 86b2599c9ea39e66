"""Stores on Redis and Valkey."""

from __future__ import annotations

from ...errors import ConfigurationError

try:
    from .address import Tls
    from .backend import RedisResultBackend
    from .broker import RedisBroker
    from .commands import RedisCommands
    from .errors import RedisReplyError, SharedConnectionError
except ModuleNotFoundError as _error:
    _missing = (_error.name or "").partition(".")[0]
    if _missing not in {"redis", "hiredis"}:
        raise
    raise ConfigurationError(f'the Redis store needs {_missing}; pip install "stem-trio[redis]"') from _error

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
