"""Which thread serves which file: one for each file and trio run, shared by the stores on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from ...errors import ConfigurationError
from .engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Settings

__all__ = ["Engines", "shared_engines"]


@attrs.define(eq=False)
class _Shared:
    """An engine, and how many stores use it. The lock is held while it opens or closes."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    engine: Engine | None = None
    users: int = 0


@final
class Engines:
    """Hands out engines."""

    def __init__(self) -> None:
        self._by_path: trio.lowlevel.RunVar[dict[Path, _Shared]] = trio.lowlevel.RunVar("stem_trio.sqlite")

    def _shared(self) -> dict[Path, _Shared]:
        try:
            return self._by_path.get()
        except LookupError:
            shared: dict[Path, _Shared] = {}
            self._by_path.set(shared)
            return shared

    async def enter(self, settings: Settings) -> Engine:
        """The engine of a file, opened if this is the first user of it. Each call is to be paired with one of `leave`.

        Cancellation: no call of `leave` is needed.

        Raises:
            ConfigurationError: the file cannot be used, or is in use with other settings.
            StoreError: the file cannot be opened just now.
        """
        files = self._shared()
        shared = files.setdefault(settings.path, _Shared())
        shared.users += 1
        try:
            async with shared.lock:
                if shared.engine is None:
                    engine = Engine(settings)
                    await engine.open()
                    shared.engine = engine
                self._check(shared.engine.settings, settings)
                return shared.engine
        except BaseException:
            await self._drop(shared, settings.path)
            raise

    @staticmethod
    def _check(used: Settings, wanted: Settings) -> None:
        for field in attrs.fields(type(used)):
            mine, theirs = getattr(wanted, field.name), getattr(used, field.name)
            if mine != theirs:
                raise ConfigurationError(
                    f"{wanted.path} is in use with {field.name}={theirs!r}, which is not to be changed to {mine!r}: "
                    "stores on one file share a connection; give them the same options"
                )

    async def leave(self, engine: Engine) -> None:
        """The engine is not needed any more; it is closed by the last one to say so.

        Cancellation: it is closed all the same, which takes some seconds at most.
        """
        path = engine.settings.path
        await self._drop(self._shared()[path], path)

    async def _drop(self, shared: _Shared, path: Path) -> None:
        shared.users -= 1
        if shared.users:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        # From here on a newcomer gets an engine of its own; two on one file do not disturb each other.
        self._shared().pop(path, None)
        if shared.engine is not None:
            await shared.engine.close()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()


shared_engines: Final = Engines()
"""The engines of this process."""
