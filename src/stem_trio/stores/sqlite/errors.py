"""From what SQLite reports to this package's errors."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, final

from ...errors import ConfigurationError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SqliteFileError", "is_busy", "translate"]

_PRIMARY: Final = 0xFF
"""The low byte of an error code says what it is, the rest gives details."""
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


@final
class SqliteFileError(StoreError):
    """The file is damaged. Nothing is written to it any more; its content may be saved by SQLite's ``.recover``.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path} is damaged ({problem}); put a backup in its place, or save what can be read with "
            f"`sqlite3 {path} .recover`"
        )
        self.path = path


def _code(error: sqlite3.Error) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY if isinstance(code, int) else sqlite3.SQLITE_ERROR


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else has the file locked, so that it is worth trying again soon."""
    return _code(error) in _BUSY


def translate(error: sqlite3.Error, path: Path, *, committing: bool = False) -> StoreError | ConfigurationError:
    """This package's error for one of SQLite's; raise it from the original.

    Args:
        error: the original.
        path: the file.
        committing: whether it came at the end of a transaction, where it may leave open what has become of that.
    """
    code = _code(error)
    if code in _BUSY:
        return StoreUnavailableError(
            f"{path} is locked by another program, longer than busy_timeout; find who holds a transaction open"
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailableError(f"no space is left for {path}; free some on its disk: {error}")
    if code == sqlite3.SQLITE_READONLY:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_DBMOVED":
            return StoreUnavailableError(f"{path} was moved or deleted while in use; open the store again")
        return ConfigurationError(f"{path} cannot be written; it and its directory need write permission: {error}")
    if code in _DAMAGED:
        return SqliteFileError(path, str(error))
    if code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return ConfigurationError(f"{path}: access is refused; check its permissions: {error}")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL):
        return StoreUnavailableError(
            f"{path} cannot be read or written just now: {error}",
            maybe_applied=committing and code == sqlite3.SQLITE_IOERR,
        )
    if code == sqlite3.SQLITE_INTERRUPT:
        return StoreUnavailableError(f"{path} is being closed", maybe_applied=committing)
    return StoreError(f"SQLite refused an operation on {path}: {error}")
