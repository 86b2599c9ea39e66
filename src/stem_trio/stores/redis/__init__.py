"""Stores on Redis and Valkey."""

from __future__ import annotations

from .address import Tls
from .backend import RedisResultBackend
from .broker import RedisBroker

__all__ = ["RedisBroker", "RedisResultBackend", "Tls"]
