"""The command of the demo."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import trio

from .. import StemError
from .. import demo as package
from .show import show

__all__ = ["main"]


def main() -> int:
    """Run the demo; the exit code is 0 if everything was as it should be."""
    parser = argparse.ArgumentParser(prog="python -m stem_trio.demo", description=package.__doc__)
    parser.add_argument("file", nargs="?", help="SQLite file to use and keep; by default a temporary one")
    file: str | None = parser.parse_args().file
    logging.getLogger("stem_trio").addHandler(logging.NullHandler())
    # The file goes after its users: those of a process that was killed are gone too when this ends.
    with tempfile.TemporaryDirectory(prefix="stem-trio-", ignore_cleanup_errors=True) as folder:
        return _run(str(Path(folder) / "demo.db") if file is None else str(Path(file).absolute()))


def _run(file: str) -> int:
    code = 1
    try:
        code = 0 if trio.run(show, file) else 1
    except* KeyboardInterrupt:
        print("\nInterrupted; nothing is left running.", file=sys.stderr)
        code = 130
    except* (StemError, RuntimeError, trio.TooSlowError) as group:
        error = _first(group)
        print(f"\nThe demo has failed: {type(error).__name__}: {error}", file=sys.stderr)
    if code == 0:
        print("Nothing is lost, and nothing is left running.")
    return code


def _first(group: BaseExceptionGroup) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
