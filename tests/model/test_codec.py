"""JSON for arguments, results and meta."""

from __future__ import annotations

import collections
import dataclasses
import enum
import os
import types
import typing
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec
import pytest

from stem_trio.codec import ENCODE_ERRORS, decode_hook, encode, find_unsupported, make_decoder

T = typing.TypeVar("T")


class Custom:
    pass


class CustomGeneric(typing.Generic[T]):
    pass


class Fraction(enum.Enum):
    HALF = 0.5


class Tree(msgspec.Struct):
    path: Path
    children: list[Tree] = []


class BadTree(msgspec.Struct):
    children: list[BadTree]
    leaf: Custom | None = None


@dataclasses.dataclass
class Node:
    name: str
    next: Node | None
    payload: Any = None


@dataclasses.dataclass
class BadNode:
    next: BadNode | None
    payload: dict[str, list[tuple[int, Custom]]]


class Typed(typing.TypedDict):
    a: int
    b: Custom


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (None, b"null"),
        ({"a": [1, 2.5, "x", True]}, b'{"a":[1,2.5,"x",true]}'),
        ("ü", '"ü"'.encode()),
        (PurePosixPath("/a/b"), b'"/a/b"'),
        ([PurePosixPath("a")], b'["a"]'),
        (PureWindowsPath("C:/a"), b'"C:\\\\a"'),
        (Node("a", Node("b", None)), b'{"name":"a","next":{"name":"b","next":null,"payload":null},"payload":null}'),
        (Tree(PurePosixPath("/")), b'{"path":"/","children":[]}'),
        (b"\x00\xff", b'"AP8="'),
        ({1: 2}, b'{"1":2}'),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_encode(value, raw):
    """What msgspec knows, and paths, become JSON."""
    assert encode(value) == raw


@pytest.mark.parametrize(
    "value",
    [
        Custom(),
        {"a": [Custom()]},
        {(1, 2): 3},
        Custom,
        print,
        1j,
        "\ud800",
        collections.deque([1]),
        types.MappingProxyType({}),
        nested(100_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold(value):
    """Anything else raises one of the listed errors, whatever goes wrong."""
    with pytest.raises(ENCODE_ERRORS):
        encode(value)


def test_unsupported_values_are_named():
    """The error says of which type the value is."""
    with pytest.raises(NotImplementedError, match="values of type Custom cannot be represented as JSON"):
        encode(Custom())


@pytest.mark.parametrize("kind", [Path, PurePath, PurePosixPath, PureWindowsPath])
def test_paths_are_read(kind):
    """Each class of paths is made from text."""
    path = make_decoder(kind).decode(b'"a/b"')
    assert path == kind("a/b")
    assert isinstance(path, kind)


@pytest.mark.parametrize("raw", [b"1", b"null", b'["a"]'])
def test_paths_are_text(raw):
    """Anything but text is no path, and the error says where it is."""
    with pytest.raises(msgspec.ValidationError, match=r"Expected `str`, got `\w+` - at `\$.path`"):
        make_decoder(Tree).decode(b'{"path":' + raw + b"}")


def test_the_hook_knows_nothing_else():
    """Classes that slipped through the check are named."""
    with pytest.raises(NotImplementedError, match="values of type Custom cannot be read from JSON"):
        decode_hook(Custom, {})


@pytest.mark.parametrize(
    "kind",
    [
        int,
        None,
        Any,
        Path,
        list[Path],
        Path | None,
        dict[str, Path],
        dict[int, list[tuple[int, ...]]],
        typing.Literal["a", 1],
        typing.Annotated[int, msgspec.Meta(gt=0)],
        Tree,
        list[Tree],
        Node,
        msgspec.Raw,
        typing.Sequence[int],
    ],
)
def test_supported_types(kind):
    """Types that JSON can be decoded into, recursive ones among them."""
    assert find_unsupported(kind) is None


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Custom, Custom),
        (list[Custom], Custom),
        (Custom | None, Custom),
        (dict[str, list[Custom]], Custom),
        (dict[Custom, int], Custom),
        (tuple[int, Custom], Custom),
        (tuple[Custom, ...], Custom),
        (typing.Annotated[Custom, "x"], Custom),
        (Typed, Custom),
        (BadTree, Custom),
        (list[BadTree], Custom),
        (BadNode, Custom),
        (CustomGeneric[int], CustomGeneric),
        (os.PathLike[str], os.PathLike),
        (complex, complex),
        (object, object),
        (collections.deque[int], collections.deque),
        (typing.Callable[[int], int], collections.abc.Callable),
        (typing.Iterator[int], collections.abc.Iterator),
    ],
)
def test_unsupported_types(kind, found):
    """A class that cannot be made from JSON is found, however deep within a type."""
    assert find_unsupported(kind) is found


@pytest.mark.parametrize("kind", [Fraction, list[int] | set[str], typing.Literal[0.5], typing.NoReturn, 5])
def test_types_that_msgspec_refuses(kind):
    """What msgspec itself cannot make sense of raises its error."""
    with pytest.raises(TypeError):
        find_unsupported(kind)
