"""Checks of single values that several modules need; each raises an error that names the option and the remedy."""

from __future__ import annotations

import math
from datetime import timedelta

from .errors import InvalidOptionError

__all__ = ["duration", "integer", "number", "queue_name"]

_MAX_NAME = 200


def _finite(value: object) -> float | None:
    """The value as a float, or None when it is no number, infinite, or too large an integer."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def number(option: str, value: object, *, minimum: float | None = None, maximum: float | None = None) -> float:
    """A finite float within bounds (both inclusive)."""
    result = _finite(value)
    if result is None:
        raise InvalidOptionError(option, value, "must be a finite number")
    if minimum is not None and result < minimum:
        raise InvalidOptionError(option, value, f"must be at least {minimum:g}")
    if maximum is not None and result > maximum:
        raise InvalidOptionError(option, value, f"must be at most {maximum:g}")
    return result


def integer(option: str, value: object, *, minimum: int = 0, maximum: int | None = None) -> int:
    """An int within bounds (both inclusive)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOptionError(option, value, "must be an integer")
    if value < minimum:
        raise InvalidOptionError(option, value, f"must be at least {minimum}")
    if maximum is not None and value > maximum:
        raise InvalidOptionError(option, value, f"must be at most {maximum}")
    return int(value)  # of an IntEnum, its number


def duration(option: str, value: object, *, positive: bool = False) -> float:
    """Seconds from a number or a timedelta, not negative; with `positive`, not zero either."""
    seconds = _finite(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds is None:
        raise InvalidOptionError(option, value, "must be a finite number of seconds or a timedelta")
    if seconds < 0 or (positive and seconds == 0):
        raise InvalidOptionError(option, value, "must be more than 0" if positive else "must not be negative")
    return seconds


def queue_name(option: str, value: object) -> str:
    """A queue name: 1 to 200 characters, none of them a control character, no blanks around it.

    Separators, colons and unicode are all allowed; stores must quote what their key layout cannot carry.
    """
    if not isinstance(value, str) or not value or value != value.strip() or not value.isprintable():
        raise InvalidOptionError(option, value, "must be a non-empty printable string without blanks around it")
    if len(value) > _MAX_NAME:
        raise InvalidOptionError(option, value, f"must have at most {_MAX_NAME} characters")
    return str.__str__(value)  # of an enum that is text, its text: that is what travels
