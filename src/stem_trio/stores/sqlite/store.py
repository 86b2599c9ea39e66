"""What broker and backend on SQLite have in common: being open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..._validate import duration
from ...abc import Store
from ...errors import InvalidOptionError, StoreClosedError, StoreError
from .address import parse_path
from .engine import Engine, Settings
from .sharing import shared_engines

if TYPE_CHECKING:
    import os
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from ...clock import WallClock
    from .transaction import Change

__all__ = ["DEFAULT_BUSY_TIMEOUT", "SYNCHRONOUS", "SqliteStore"]

SYNCHRONOUS: Final = ("OFF", "NORMAL", "FULL", "EXTRA")
DEFAULT_BUSY_TIMEOUT: Final = 5.0


class SqliteStore(Store):
    """A store in one file.

    Args:
        address: where the file is.
        synchronous: when SQLite waits for the disk.
        busy_timeout: seconds to wait for others' locks.
        clock: tells all times, in tests.

    Attributes:
        settings: which file, and how it is used.

    Raises:
        ConfigurationError: the address names no file.
        InvalidOptionError: an option is out of its range.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        *,
        synchronous: str,
        busy_timeout: float | timedelta,
        clock: WallClock | None,
    ) -> None:
        if not isinstance(synchronous, str) or synchronous.upper() not in SYNCHRONOUS:
            raise InvalidOptionError("synchronous", synchronous, f"must be one of {', '.join(SYNCHRONOUS)}")
        self.settings: Final = Settings(
            path=parse_path(address),
            synchronous=synchronous.upper(),
            busy_timeout=duration("busy_timeout", busy_timeout),
            clock=clock,
        )
        self._engines = shared_engines
        self._engine_in_use: Engine | None = None
        self._is_entered = False

    @classmethod
    def open(cls, address: str | os.PathLike[str], **options: Any) -> Self:
        """A store in the file that a URL or path names. The file is opened, or made, when the store is entered.

        Args:
            address: ``sqlite:///relative.db``, ``sqlite:////absolute/file.db``, or a path.
            options: those of the class.

        Raises:
            ConfigurationError: the address names no file.
            InvalidOptionError: an option is out of its range.
        """
        return cls(address, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.path}>"

    async def __aenter__(self) -> Self:
        """Open the file, and make its tables where there are none.

        Cancellation: it is not open.

        Raises:
            ConfigurationError: the file cannot be used: it is no database, one of another program or of a newer
                version of this one, cannot be written, or is in use with other options.
            StoreUnavailableError: it is locked for longer than `busy_timeout`, or the disk is full.
            SqliteFileError: it is damaged.
            StoreError: the store is open already.
        """
        if self._is_entered:
            raise StoreError(f"{self!r} is open already: share it, or make another one")
        self._is_entered = True
        try:
            self._engine_in_use = await self._engines.enter(self.settings)
        except BaseException:
            self._is_entered = False
            raise
        self._engine_in_use.listen(self._changed)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store, and the file if this was the last store on it; whoever waits gets a `StoreClosedError`.

        Cancellation: it is closed all the same, which takes some seconds at most.
        """
        engine = self._engine
        engine.unlisten(self._changed)
        self._engine_in_use = None
        self._close()
        try:
            await self._engines.leave(engine)
        finally:
            self._is_entered = False

    @property
    def _engine(self) -> Engine:
        if self._engine_in_use is None:
            raise StoreClosedError(f"{self!r} is used outside of its `async with` block")
        return self._engine_in_use

    def _changed(self, change: Change) -> None:
        """Somebody has changed something: wake whom it concerns."""
        raise NotImplementedError

    def _close(self) -> None:
        """Wake all who wait, to find the store closed."""
        raise NotImplementedError
