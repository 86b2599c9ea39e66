"""Stores in one SQLite file: durable, with nothing to install, for the processes of one machine."""

from __future__ import annotations

from .backend import SqliteResultBackend
from .broker import SqliteBroker
from .errors import SqliteFileError

__all__ = ["SqliteBroker", "SqliteFileError", "SqliteResultBackend"]
