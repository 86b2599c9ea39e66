"""What the demo prints: a line for each thing that happens."""

from __future__ import annotations

import sys
import time
from typing import Final, final

import msgspec

__all__ = ["Line", "Printer"]

_COLOURS: Final = {"green": "32", "red": "31", "yellow": "33", "blue": "34", "grey": "90"}
_EVENT_COLOURS: Final = {
    "enqueued": "grey",
    "started": "blue",
    "progress": "blue",
    "retrying": "yellow",
    "succeeded": "green",
    "failed": "red",
    "revoked": "red",
    "expired": "red",
}


@final
class Line(msgspec.Struct, frozen=True):
    """What a worker tells.

    Attributes:
        name: name of the task.
        what: what has happened to it, in a word.
        detail: more words.
    """

    name: str
    what: str
    detail: str = ""


@final
class Printer:
    """Prints what happens, and when. Who did it is the first word: a worker, or the producer."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._colours = sys.stdout.isatty()

    def event(self, who: str, line: Line) -> None:
        """Something has happened to a task."""
        what = self._in_colour(_EVENT_COLOURS.get(line.what, "grey"), f"{line.what:<10}")
        print(f"{self._time()}  {who:<9} {line.name:<14} {what} {line.detail}".rstrip(), flush=True)

    def say(self, text: str, *, colour: str | None = None) -> None:
        """Tell the user something."""
        print(f"{self._time()}  {text if colour is None else self._in_colour(colour, text)}", flush=True)

    def heading(self, text: str) -> None:
        """Begin a part."""
        print(f"\n{text}", flush=True)

    def _time(self) -> str:
        return f"{time.monotonic() - self._began:6.2f} s"

    def _in_colour(self, colour: str, text: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colours else text
