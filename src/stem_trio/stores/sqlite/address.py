"""Which file a URL or path stands for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["parse_path"]

_SCHEME: Final = "sqlite://"
_FORMS: Final = "write sqlite:///relative.db, sqlite:////absolute/file.db, or a path"
_IN_MEMORY: Final = "a file is needed: use memory:// for stores in the memory of one process"


def parse_path(address: str | PathLike[str]) -> Path:
    """The file, as an absolute path without symbolic links.

    Args:
        address: ``sqlite:///relative.db``, ``sqlite:////absolute/file.db``, or a path.

    Raises:
        ConfigurationError: it names no file.
    """
    try:
        text = os.fspath(address)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise ConfigurationError(f"where the SQLite file is must be a URL or a path, not {type(address).__name__}")
    if text.lower().startswith(_SCHEME):
        text = _path_of_url(text)
    elif "://" in text:
        raise ConfigurationError(f"{text.partition('://')[0]}:// is not a scheme of SQLite; {_FORMS}")
    if text.startswith(":memory:"):
        raise ConfigurationError(f"{text}: {_IN_MEMORY}")
    if text.startswith("file:"):
        raise ConfigurationError(f"{text}: SQLite's own URIs are not used here; {_FORMS}")
    if not text or "\0" in text or text.endswith("/"):
        raise ConfigurationError(f"{text!r} names no file; {_FORMS}")
    # One file, one name: the log and the index of SQLite stand beside the name that it was opened by.
    return Path(os.path.realpath(text))


def _path_of_url(url: str) -> str:
    rest = url[len(_SCHEME) :]
    if "?" in rest or "#" in rest:
        raise ConfigurationError(f"{url}: options do not stand in the URL; pass them by name, as synchronous='NORMAL'")
    if not rest.startswith("/"):
        if rest.startswith(":memory:") or not rest:
            raise ConfigurationError(f"{url}: {_IN_MEMORY}")
        raise ConfigurationError(f"{url}: there is no host to name; {_FORMS}")
    path = unquote(rest[1:])
    if path in ("", ":memory:"):
        raise ConfigurationError(f"{url}: {_IN_MEMORY}")
    return path
