"""Where tasks are kept when a program does not say where: in a file in the user's data folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["default_url"]

_FOLDER: Final = "stem-trio"
_FILE: Final = "stem.db"
_PRIVATE: Final = 0o700
"""What tasks carry concerns nobody else on the machine."""


def default_url() -> str:
    """URL of the SQLite file in the user's data folder, which is made, for the user alone, if it is not there.

    Raises:
        ConfigurationError: there is no such folder and it cannot be made, or nothing says where the user's files are.
    """
    from platformdirs import user_data_path  # noqa: PLC0415 - programs that name their stores do not need it

    folder = user_data_path(_FOLDER, appauthor=False)
    if not folder.is_absolute():
        raise ConfigurationError(
            f"no URL is given, and where the user's data is must be an absolute path, not {os.fspath(folder)!r}; set "
            "HOME or XDG_DATA_HOME, or pass a URL"
        )
    try:
        for missing in reversed(list(_missing(folder))):
            missing.mkdir(_PRIVATE, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"no URL is given, and the folder {error.filename or folder} cannot be made: {error.strerror or error}; "
            "pass a URL"
        ) from error
    return f"sqlite:///{quote(os.fspath(folder / _FILE), errors='surrogateescape')}"


def _missing(folder: Path) -> Iterator[Path]:
    """A folder and those above it, as far as there are none."""
    while not folder.is_dir():
        yield folder
        if folder == folder.parent:
            return
        folder = folder.parent
