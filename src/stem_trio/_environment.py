"""Reads the values of environment variables. What cannot be read raises a `ValueError` that does not show the value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._validate import queue_name
from .errors import ConfigurationError, InvalidOptionError
from .keys import ALGORITHMS, SigningKey
from .stores.adapters import scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "read_algorithm",
    "read_count",
    "read_duration",
    "read_file",
    "read_flag",
    "read_key_id",
    "read_private_keys",
    "read_public_keys",
    "read_queues",
    "read_secrets",
    "read_url",
]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FLAGS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def read_url(text: str) -> str:
    """The URL of a store; whether anything serves it is told when it is opened."""
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        raise ValueError("must not have blanks or control characters in it; write them as %20 and the like")
    try:
        scheme_of(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return text


def read_queues(text: str) -> tuple[str, ...]:
    """Names of queues, separated by commas; each counts once."""
    try:
        return tuple(dict.fromkeys(queue_name("queue", name.strip()) for name in text.split(",")))
    except InvalidOptionError:
        raise ValueError("must be names of queues, separated by commas, none of them empty") from None


def read_count(text: str) -> int:
    """An integer from 1 on."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise ValueError("must be a whole number, at least 1")
    return int(text)


def read_duration(text: str) -> float:
    """Seconds, from a number with its unit."""
    match = _DURATION.fullmatch(text)
    if match is None or len(text) > 20 or float(match[1]) == 0:
        raise ValueError("must be a number above 0 with its unit, as in 500ms, 5s, 2m, 1h, 7d")
    return float(match[1]) * _UNITS[match[2]]


def read_flag(text: str) -> bool:
    """True or False."""
    if text.lower() not in _FLAGS:
        raise ValueError("must be true or false (or 1, yes, on, 0, no, off)")
    return _FLAGS[text.lower()]


def read_file(text: str) -> str:
    """The path of a file that is there."""
    if not Path(text).is_file():
        raise ValueError("there is no such file")
    return text


def read_algorithm(text: str) -> str:
    """An algorithm for signatures."""
    if text.lower() not in ALGORITHMS:
        raise ValueError(f"must be one of {', '.join(ALGORITHMS)}")
    return text.lower()


def read_key_id(text: str) -> str:
    """An id of a key, which is to be among the keys."""
    return text


def read_secrets(text: str) -> tuple[SigningKey, ...]:
    """Shared secrets."""
    return _keys(text, SigningKey.hmac_sha256)


def read_private_keys(text: str) -> tuple[SigningKey, ...]:
    """Ed25519 private keys."""
    return _keys(text, SigningKey.ed25519)


def read_public_keys(text: str) -> tuple[SigningKey, ...]:
    """Ed25519 public keys."""
    return _keys(text, SigningKey.ed25519_public)


def _keys(text: str, make: Callable[[str, str], SigningKey]) -> tuple[SigningKey, ...]:
    keys: dict[str, SigningKey] = {}
    problems: list[str] = []
    # Entries are told apart by their place: what stands for the id may be the secret, where somebody mixed them up.
    for number, entry in enumerate(text.split(","), 1):
        id, separator, material = entry.partition(":")
        id = id.strip()
        try:
            if not separator:
                raise ConfigurationError("must be written id:key, entries separated by commas")
            if id in keys:
                raise ConfigurationError("has the id of an entry before it; give each key an id of its own")
            keys[id] = make(id, material.strip())
        except ConfigurationError as error:
            problems.append(f"entry {number}: {str(error).removeprefix('signing key: ')}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(keys.values())
