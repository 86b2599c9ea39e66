"""Opening a file, and bringing it up to this program's schema."""

from __future__ import annotations

import select
import sqlite3
from importlib import resources
from typing import TYPE_CHECKING, Final

from ...errors import ConfigurationError
from . import statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .clock import StoreClock

__all__ = ["APPLICATION", "connect", "load_migrations", "migrate"]

APPLICATION: Final = 0x5374656D
"""What the file's header says that it belongs to: "Stem"."""
_MINIMUM: Final = (3, 33, 0)  # UPDATE ... FROM
_CACHED_STATEMENTS: Final = 256
_DURABLE: Final = ("FULL", "EXTRA")
_LOCK_WAIT: Final = 100
"""Milliseconds that one attempt to open a file waits for others' locks."""


def load_migrations() -> tuple[str, ...]:
    """The scripts that make a file's schema, one for each version: what number n leads from version n - 1 to n."""
    folder = resources.files("stem_trio.stores.sqlite") / "migrations"
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple(script.read_text(encoding="utf-8") for script in scripts)


def _split(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def connect(path: Path, *, synchronous: str, clock: StoreClock) -> sqlite3.Connection:
    """Open a file, make its tables where there are none, and set the clock.

    A file that belongs to something else, or to a newer version of this package, is left as it is.

    Raises:
        ConfigurationError: the file cannot be opened, or is not one of this package's, or is of a newer one.
        sqlite3.Error: anything else.
    """
    if sqlite3.sqlite_version_info < _MINIMUM:  # pragma: no cover - Pythons that are supported come with a later one
        raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old; Python must come with 3.33 or later")
    if not hasattr(select, "poll"):  # pragma: no cover - there are no such systems among those that are supported
        raise ConfigurationError("stores on SQLite need a POSIX system, as Linux or macOS; use a store on a server")
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path}: there is no directory {path.parent}; make it first")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a directory; name a file within it")
    try:
        connection = sqlite3.connect(path, isolation_level=None, cached_statements=_CACHED_STATEMENTS)
    except sqlite3.OperationalError as error:
        raise ConfigurationError(
            f"{path} cannot be opened; this process must be able to write the file and its directory: {error}"
        ) from error
    try:
        connection.execute(statements.SET_BUSY_TIMEOUT.format(_LOCK_WAIT))
        migrations = load_migrations()
        _check_owner(connection, path, len(migrations))
        connection.execute(statements.SET_SYNCHRONOUS.format(synchronous))
        if synchronous in _DURABLE:
            connection.execute(statements.WAIT_FOR_DISK)
        connection.execute(statements.AUTO_VACUUM)
        (mode,) = connection.execute(statements.WRITE_AHEAD_LOG).fetchone()
        if mode != "wal":
            raise ConfigurationError(f"{path}: its file system does not allow a write-ahead log; use a local disk")
        for setting in statements.SETTINGS:
            connection.execute(setting)
        migrate(connection, path, migrations, clock)
        connection.execute(statements.SET_BUSY_TIMEOUT.format(0))  # the engine waits, and can be told not to
    except BaseException:
        connection.close()
        raise
    return connection


def _check_owner(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """The version of the file's schema; 0 when it is empty."""
    try:
        (application,) = connection.execute(statements.READ_APPLICATION).fetchone()
        (version,) = connection.execute(statements.READ_VERSION).fetchone()
        (objects,) = connection.execute(statements.COUNT_OBJECTS).fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise ConfigurationError(f"{path} is not an SQLite database; choose another file") from error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
            raise ConfigurationError(
                f"{path} cannot be opened; this process must be able to write the file and its directory: {error}"
            ) from error
        raise
    if application != APPLICATION:
        if application or version or objects:
            raise ConfigurationError(f"{path} is a database of another program; choose another file")
        return 0
    if version > newest:
        raise ConfigurationError(
            f"{path} has schema {version}, made by a newer version of this package, which knows up to {newest}; "
            "upgrade it"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str], clock: StoreClock) -> None:
    """Bring the schema up to date, in one transaction, and set the clock."""
    connection.execute(statements.BEGIN_WRITING)
    try:
        # Looked at again: another process may have been quicker.
        version = _check_owner(connection, path, len(migrations))
        for number in range(version, len(migrations)):
            for statement in _split(migrations[number]):
                connection.execute(statement)
        if version < len(migrations):
            connection.execute(statements.SET_APPLICATION.format(APPLICATION))
            connection.execute(statements.SET_VERSION.format(len(migrations)))
        clock.set(connection)
        connection.execute(statements.COMMIT)
    except BaseException:
        if connection.in_transaction:
            connection.execute(statements.ROLLBACK)
        raise
