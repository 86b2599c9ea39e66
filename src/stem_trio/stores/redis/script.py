"""Lua scripts, called by their hash and loaded when the server does not know them.

A changed script has another hash: two versions of the program can work side by side, neither replaces the other's.
"""

from __future__ import annotations

import hashlib
import pkgutil
from typing import TYPE_CHECKING, Any, Final, final

from .connection import Argument, pack
from .errors import NoScriptError, ReplyError, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .transport import RedisTransport

__all__ = ["CHUNK", "Script", "load_script"]

CHUNK: Final = 500
"""Tasks that one script call handles at most: it keeps the server from others, and Lua's stack is finite."""


@final
class Script:
    """One script.

    Args:
        source: its text.
    """

    def __init__(self, source: str) -> None:
        self._source: Final = source
        self._hash: Final = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def pack(self, keys: Sequence[str], args: Sequence[Argument]) -> bytes:
        """The command that runs it on a server that knows it."""
        return pack(("EVALSHA", self._hash, len(keys), *keys, *args))

    def pack_source(self, keys: Sequence[str], args: Sequence[Argument]) -> bytes:
        """The command that runs it on any server, and makes its hash known there."""
        return pack(("EVAL", self._source, len(keys), *keys, *args))

    async def call(
        self,
        transport: RedisTransport,
        keys: Sequence[str],
        args: Sequence[Argument],
        on_abandoned: Callable[[Any], None] | None = None,
    ) -> Any:
        """Run it. Every script of this package may be run twice without harm.

        Args:
            transport: where to.
            keys: its keys.
            args: its arguments.
            on_abandoned: called with its result if that comes after a cancellation.

        Cancellation: it may or may not be run.

        Raises:
            StoreError: see `RedisTransport.pipeline`.
        """

        def abandoned(replies: list[Any]) -> None:
            if on_abandoned is not None and not isinstance(replies[0], ReplyError):
                on_abandoned(replies[0])

        [reply] = await transport.pipeline([self.pack(keys, args)], repeatable=True, on_abandoned=abandoned)
        if isinstance(reply, NoScriptError):
            # A new server, or one whose scripts were flushed.
            command = self.pack_source(keys, args)
            [reply] = await transport.pipeline([command], repeatable=True, on_abandoned=abandoned)
        if isinstance(reply, ReplyError):
            raise translate(reply) from reply
        return reply


def load_script(name: str, *parts: str) -> Script:
    """Read a script that belongs to the package.

    Args:
        name: its file, without ending.
        parts: files that are put before it.
    """
    return Script("".join(_read(part) for part in (*parts, name)))


def _read(name: str) -> str:
    # Not by importlib.resources, which is ten modules more in every worker.
    data = pkgutil.get_data(__name__, f"scripts/{name}.lua")
    assert data is not None, "whatever can load this package can load its data"
    return data.decode()
