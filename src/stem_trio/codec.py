"""JSON for arguments, results and meta: msgspec's types, and paths."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ENCODE_ERRORS", "OptionalRaw", "decode_hook", "encode", "find_unsupported", "make_decoder"]

if TYPE_CHECKING:
    OptionalRaw = msgspec.Raw | None
else:
    # Into a field annotated with the union, msgspec decodes nothing but null. A default of None is no matter to it.
    OptionalRaw = msgspec.Raw

ENCODE_ERRORS: Final = (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError)
"""What `encode` raises for a value that JSON cannot hold."""


def _encode_hook(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"values of type {type(value).__qualname__} cannot be represented as JSON")


def decode_hook(kind: type[Any], value: object) -> object:
    """Make what msgspec itself cannot: paths from text."""
    if issubclass(kind, PurePath):
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
        return kind(value)
    raise NotImplementedError(f"values of type {kind.__qualname__} cannot be read from JSON")


_encoder: Final = msgspec.json.Encoder(enc_hook=_encode_hook)


def encode(value: object) -> bytes:
    """A value as JSON. Raises one of `ENCODE_ERRORS`."""
    return _encoder.encode(value)


def make_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder of JSON into the given type."""
    return msgspec.json.Decoder(kind, dec_hook=decode_hook)


def find_unsupported(kind: Any) -> type[Any] | None:
    """The first class within a type that cannot be made from JSON, or None."""
    seen: set[int] = set()
    todo: list[Any] = [msgspec.inspect.type_info(kind)]
    while todo:
        info = todo.pop()
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.CustomType):
            cls = cast("type[Any]", info.cls)
            if not issubclass(cls, PurePath):
                return cls
        if isinstance(info, tuple | list):
            todo.extend(cast("Iterable[Any]", info))
        elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
            todo.extend(getattr(info, name) for name in info.__struct_fields__)
    return None
