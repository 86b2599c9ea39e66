"""From signatures to arguments. Annotations are real objects here; for those that are text see `samples`."""

import dataclasses
import datetime as dt
import enum
import functools
import json
import typing
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import attrs
import msgspec
import pytest
import trio

from stem_trio.codec import encode
from stem_trio.context import TaskContext
from stem_trio.errors import ArgumentsError, RegistrationError
from stem_trio.signature import FunctionSignature, decode_arguments, encode_arguments

from . import samples
from .support import Support, make_delivery

T = TypeVar("T")
CONTEXT = TaskContext(make_delivery(), Support())


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    HIGH = 2


class Custom:
    pass


@dataclasses.dataclass(frozen=True)
class Address:
    street: str
    path: Path | None = None


@dataclasses.dataclass
class Positive:
    number: int

    def __post_init__(self):
        if self.number < 0:
            raise ValueError("must not be negative - at `$.nowhere`")
        assert self.number != 13, "an unlucky number"
        if self.number == 99:
            raise KeyError


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


@attrs.frozen
class Point:
    x: int
    y: int = 0


class Order(msgspec.Struct):
    id: uuid.UUID
    lines: list[Address]


class Movie(TypedDict):
    name: str
    year: typing.NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str


UserId = NewType("UserId", int)


def sign(function) -> FunctionSignature:
    return FunctionSignature("t", function)


def run(function, *args, **kwargs):
    """What a task returns when it is called through the wire."""
    signature = sign(function)
    raw = signature.bind(args, kwargs)
    return signature.call(CONTEXT if signature.takes_context else None, signature.decode(raw))


# --- binding ----------------------------------------------------------------------------------------------------------


def nothing():
    return "nothing"


def two(a: int, b: str):
    return a, b


def default(a: int, b: str = "b"):
    return a, b


def keyword(a: int, *, b: str):
    return a, b


def keyword_only(*, a: int, b: str):
    return a, b


def keyword_default(a: int = 1, *, b: str = "b", c: int):
    return a, b, c


def positional(a: int, /, b: str):
    return a, b


def positional_default(a: int = 1, b: int = 2, /, c: int = 3, *, d: int = 4):
    return a, b, c, d


def everything(a: int, b: int = 2, /, c: int = 3, d: int = 4, *, e: int, f: int = 6):
    return a, b, c, d, e, f


def untyped(a, b=2):
    return a, b


def odd_names(self: int, task: int, args: int, kwargs: int, _x: int, context: int, größe: int):  # noqa: PLC2401
    return self, task, args, kwargs, _x, context, größe


ODD_NAMES = ["größe", "context", "_x", "kwargs", "args", "task", "self"]


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "result"),
    [
        (nothing, (), {}, "nothing"),
        (two, (1, "x"), {}, (1, "x")),
        (two, (1,), {"b": "x"}, (1, "x")),
        (two, (), {"b": "x", "a": 1}, (1, "x")),
        (default, (1,), {}, (1, "b")),
        (default, (1, "x"), {}, (1, "x")),
        (default, (), {"a": 1, "b": "x"}, (1, "x")),
        (keyword, (1,), {"b": "x"}, (1, "x")),
        (keyword_only, (), {"b": "x", "a": 1}, (1, "x")),
        (keyword_default, (), {"c": 3}, (1, "b", 3)),
        (keyword_default, (7,), {"c": 3, "b": "x"}, (7, "x", 3)),
        (positional, (1, "x"), {}, (1, "x")),
        (positional, (1,), {"b": "x"}, (1, "x")),
        (positional, (), {"a": 1, "b": "x"}, (1, "x")),  # arguments travel by name, and may be given so
        (positional_default, (), {}, (1, 2, 3, 4)),
        (positional_default, (10,), {}, (10, 2, 3, 4)),
        (positional_default, (), {"b": 20}, (1, 20, 3, 4)),  # not the 10 of another
        (positional_default, (), {"c": 30}, (1, 2, 30, 4)),
        (positional_default, (10, 20, 30), {"d": 40}, (10, 20, 30, 40)),
        (everything, (1,), {"e": 5}, (1, 2, 3, 4, 5, 6)),
        (everything, (1,), {"e": 5, "d": 40}, (1, 2, 3, 40, 5, 6)),
        (everything, (1, 20, 30, 40), {"e": 50, "f": 60}, (1, 20, 30, 40, 50, 60)),
        (untyped, (1,), {"b": {"x": [None, 1.5]}}, (1, {"x": [None, 1.5]})),
        (odd_names, (1, 2, 3, 4, 5, 6, 7), {}, (1, 2, 3, 4, 5, 6, 7)),
        (
            odd_names,
            (),
            dict(zip(ODD_NAMES, range(7), strict=True)),
            (6, 5, 4, 3, 2, 1, 0),
        ),
    ],
)
def test_arguments_arrive(function, args, kwargs, result):
    """Whatever a function takes, by position or by name, arrives where it belongs."""
    assert run(function, *args, **kwargs) == result


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "wire"),
    [
        (nothing, (), {}, {}),
        (two, (1, "x"), {}, {"a": 1, "b": "x"}),
        (positional_default, (10,), {"d": 40}, {"a": 10, "d": 40}),
    ],
)
def test_arguments_travel_by_name(function, args, kwargs, wire):
    """On the wire is what was given, by name, and no defaults."""
    assert json.loads(sign(function).bind(args, kwargs)) == wire


def test_defaults_are_left_to_the_function():
    """A default is the function's own object where the task runs; it need not be representable, nor of its type."""
    sentinel = Custom()

    def function(a: int = sentinel, /, b: int = sentinel, *, c: int = sentinel):
        return a, b, c

    assert sign(function).bind((), {}) == b"{}"
    assert all(value is sentinel for value in run(function))


@pytest.mark.parametrize("given", [{"a": 1, "b": "x"}, MappingProxyType({"a": 1, "b": "x"})])
def test_arguments_by_name(given):
    """Arguments can be given as any mapping."""
    signature = sign(two)
    assert signature.call(None, signature.decode(signature.encode(given))) == (1, "x")


# --- the context ------------------------------------------------------------------------------------------------------


def context_first(context: TaskContext, a: int):
    return context, a


def context_middle(a: int, context: TaskContext, b: int):
    return context, (a, b)


def context_last(a: int, context: TaskContext):
    return context, a


def context_keyword(a: int, *, context: TaskContext):
    return context, a


def context_alone(*, context: TaskContext):
    return context, None


def context_before_keyword(*, context: TaskContext, a: int):
    return context, a


def context_positional(context: TaskContext, a: int, /):
    return context, a


def context_positional_middle(a: int, context: TaskContext, b: int = 2, /, c: int = 3):
    return context, (a, b, c)


def context_optional(context: TaskContext | None, a: int):
    return context, a


def context_typing_optional(context: typing.Optional[TaskContext], a: int):  # noqa: UP045 - the other spelling
    return context, a


def context_default(a: int, context: TaskContext | None = None):
    return context, a


def context_annotated(ctx: Annotated[TaskContext, "the run"], a: int):
    return ctx, a


def context_text(context: "TaskContext", a: "int"):
    return context, a


def context_and_defaults(context: TaskContext, a: int = 1):
    return context, a


@pytest.mark.parametrize(
    ("function", "args", "rest"),
    [
        (context_first, (1,), 1),
        (context_middle, (1, 2), (1, 2)),
        (context_last, (1,), 1),
        (context_keyword, (1,), 1),
        (context_alone, (), None),
        (context_positional, (1,), 1),
        (context_positional_middle, (1,), (1, 2, 3)),
        (context_positional_middle, (1, 20), (1, 20, 3)),
        (context_optional, (1,), 1),
        (context_typing_optional, (1,), 1),
        (context_default, (1,), 1),
        (context_annotated, (1,), 1),
        (context_text, (1,), 1),
        (context_and_defaults, (), 1),
        (context_and_defaults, (7,), 7),
    ],
)
def test_the_context_is_found_by_its_annotation(function, args, rest):
    """Wherever the context stands, it gets the run's, and is not counted among the arguments."""
    assert sign(function).takes_context
    context, given = run(function, *args)
    assert context is CONTEXT
    assert given == rest


def test_the_context_among_keywords():
    """A keyword-only context is given by its keyword, before other arguments too."""
    assert run(context_before_keyword, a=1) == (CONTEXT, 1)


@pytest.mark.parametrize("function", [nothing, two, odd_names])
def test_the_context_is_optional(function):
    """A function need not take a context; a parameter of that name with another type is an argument."""
    assert not sign(function).takes_context


def test_the_context_cannot_be_given():
    """The context is no argument: it comes from the worker alone."""
    with pytest.raises(ArgumentsError, match="argument 'context': is not an argument of this task"):
        sign(context_first).bind((), {"context": 5, "a": 1})


def test_two_contexts_are_refused():
    """More than one context makes no sense."""

    def function(one: TaskContext, two: TaskContext | None = None): ...

    with pytest.raises(RegistrationError, match=r"task 't': two parameters \(one, two\) are contexts"):
        sign(function)


async def test_postponed_annotations():
    """Annotations that are text are resolved, the context even if it is imported for type checkers only."""
    signature = sign(samples.postponed)
    address = samples.Address("a", samples.Address("b"))
    moment = dt.datetime(2025, 1, 2, tzinfo=dt.UTC)
    raw = signature.bind((), {"to": address, "at": moment})
    assert await signature.call(CONTEXT, signature.decode(raw)) == address
    assert signature.decode_result(encode(address)) == address
    assert await run(samples.optional_context, 3) == (3, "id-1")


# --- types ------------------------------------------------------------------------------------------------------------

TYPED = [
    (int, 5),
    (float, 0.1),
    (str, "ü\n"),
    (bool, True),
    (None, None),
    (Any, {"a": [1, None]}),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"\x00\xff")),
    (dt.datetime, dt.datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)),
    (dt.datetime, dt.datetime(2025, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
    (dt.datetime, dt.datetime(2025, 1, 2)),  # noqa: DTZ001 - whether aware or not is the task's own affair
    (dt.date, dt.date(2025, 1, 2)),
    (dt.time, dt.time(3, 4, 5)),
    (dt.timedelta, dt.timedelta(days=1, milliseconds=5)),
    (uuid.UUID, uuid.UUID("0198c0de-0000-7000-8000-000000000001")),
    (Decimal, Decimal("12.340")),
    (Path, Path("/tmp/ü")),
    (PurePosixPath, PurePosixPath("a/b")),
    (Path | None, None),
    (Path | None, Path("a")),
    (Color, Color.BLUE),
    (Level, Level.HIGH),
    (Literal["a", 1], "a"),
    (list[int], [1, 2]),
    (list[Path], [Path("a")]),
    (set[str], {"a", "b"}),
    (frozenset[int], frozenset({1})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (dict[str, Path], {"a": Path("b")}),
    (dict[int, Color], {1: Color.RED}),
    (dict[Color, int], {Color.RED: 1}),
    (Mapping[str, int], {"a": 1}),
    (int | str | None, "x"),
    (Address, Address("s", Path("p"))),
    (Address | None, None),
    (Box[Point], Box(Point(1, 2))),
    (Point, Point(1, 2)),
    (list[Point], [Point(1), Point(2)]),
    (Order, Order(uuid.UUID(int=1), [Address("s")])),
    (Movie, {"name": "m"}),
    (Pair, Pair(1, "r")),
    (UserId, UserId(5)),
    (Annotated[int, msgspec.Meta(gt=0)], 5),
]


@pytest.mark.parametrize(("kind", "value"), TYPED, ids=lambda case: str(case)[:40])
def test_types_survive_the_wire(kind, value):
    """A value arrives as argument and as result in the type of its annotation."""

    def function(context: TaskContext, x: kind) -> kind:
        return x

    signature = sign(function)
    arrived = signature.call(CONTEXT, signature.decode(signature.bind((value,), {})))
    result = signature.decode_result(encode(arrived))
    assert arrived == result == value
    assert type(arrived) is type(result) is type(value)


def test_values_are_converted_by_their_annotation():
    """JSON has fewer types than Python: what looks alike there is accepted and converted."""

    def function(ratio: float, items: tuple[int, ...], path: Path, name: str):
        return ratio, items, path, name

    result = run(function, 1, [1, 2], "a/b", uuid.UUID(int=0))
    assert result == (1.0, (1, 2), Path("a/b"), "00000000-0000-0000-0000-000000000000")
    assert type(result[0]) is float


def test_results_that_do_not_fit():
    """A stored result of another type than annotated is refused."""

    def function() -> dict[str, int]: ...

    assert sign(function).decode_result(b'{"a":1}') == {"a": 1}
    with pytest.raises(msgspec.DecodeError, match=r"Expected `int`, got `str` - at `\$\[...\]`"):
        sign(function).decode_result(b'{"a":"x"}')


def test_results_without_annotation():
    """Without an annotation a result is what JSON makes of it."""
    assert sign(nothing).decode_result(b'{"a":[1]}') == {"a": [1]}


# --- refused when the task is defined ---------------------------------------------------------------------------------


def var_positional(a: int, *rest: int): ...


def var_keyword(a: int, **rest: int): ...


def unsupported(a: int, b: Custom): ...


def unsupported_inside(a: dict[str, list[Custom]]): ...


def unsupported_result(a: int) -> list[Custom]: ...


def ambiguous(a: int, b: list[int] | set[str]): ...


def ambiguous_result() -> Literal[0.5]: ...  # type: ignore[valid-type]


def not_a_type(a: 5): ...


def no_expression(a: "1 +"): ...  # noqa: F722 - the point


REFUSED = [
    (var_positional, r"\*rest cannot be checked; name the parameters, or use a FunctionTaskHandler"),
    (var_keyword, r"\*rest cannot be checked; name the parameters, or use a FunctionTaskHandler"),
    (
        unsupported,
        r"parameter 'b': Custom cannot be carried as JSON; use a dataclass, an attrs class, a msgspec Struct",
    ),
    (unsupported_inside, "parameter 'a': Custom cannot be carried as JSON"),
    (unsupported_result, "the return value: Custom cannot be carried as JSON"),
    (ambiguous, r"parameter 'b': Type unions may not contain more than one array-like"),
    (ambiguous_result, "the return value: Literal may only contain"),
    (not_a_type, "parameter 'a': Type '5' is not supported"),
    (no_expression, "its signature cannot be read"),
    (functools.partial(two, 1), "its signature cannot be read"),
    (dict, "its signature cannot be read"),
]


@pytest.mark.parametrize(("function", "problem"), REFUSED)
def test_signatures_that_json_cannot_carry(function, problem):
    """What could never be enqueued is refused when it is defined, and the message names task and parameter."""
    with pytest.raises(RegistrationError, match=f"^task 't': {problem}"):
        sign(function)


@pytest.mark.parametrize(
    ("function", "error"), [(samples.only_for_type_checkers, NameError), (samples.missing_attribute, AttributeError)]
)
def test_names_that_do_not_exist_yet(function, error):
    """An annotation that cannot be resolved yet is another matter than one that is wrong: see `Task.definition`."""
    with pytest.raises(error):
        sign(function)


# --- refused when the task is called ----------------------------------------------------------------------------------


def send(to: str, size: int = 1, *, color: Color = Color.RED, address: Address | None = None): ...


def constrained(a: Annotated[int, msgspec.Meta(gt=0)]): ...


def numbers(named: dict[int, Level], positive: Positive, path: Path): ...


GOOD = {"named": {1: 2}, "positive": {"number": 1}, "path": "a"}

MISFITS = [
    # function, args, kwargs, argument at fault, problem
    (send, (), {}, "to", "is missing$"),
    (send, ("a",), {"cc": "b"}, "cc", "is not an argument of this task$"),
    (send, ("a", 1, "red"), {}, None, "3 positional arguments given, it takes at most 2$"),
    (nothing, (1,), {}, None, "1 positional arguments given, it takes at most 0$"),
    (context_first, (1, 2), {}, None, "2 positional arguments given, it takes at most 1$"),
    (send, ("a",), {"to": "b"}, "to", "is given twice$"),
    (send, (5,), {}, "to", "Expected `str`, got `int`"),
    (send, ("a",), {"size": "big"}, "size", "Expected `int`, got `str`"),
    (send, ("a",), {"size": 1.5}, "size", "Expected `int`, got `float`"),
    (send, (None,), {}, "to", "Expected `str`, got `null`"),
    (send, ("a",), {"color": "green"}, "color", "Invalid enum value 'green'"),
    (send, ("a",), {"color": "x - at `$.size`"}, "color", "Invalid enum value"),
    (send, ("a",), {"address": {}}, "address", "missing required field `street`"),
    (send, ("a",), {"address": {"street": 1}}, "address", r"Expected `str`, got `int` - at `\$.address.street`"),
    (send, ("a",), {"address": Point(1)}, "address", "missing required field `street`"),
    (constrained, (0,), {}, "a", "Expected `int` >= 1"),
    (numbers, (), GOOD | {"named": {"x": 2}}, "named", r"Expected `int`, got `str` - at `key` in `\$.named`"),
    (numbers, (), GOOD | {"named": {1: 5}}, "named", "Invalid enum value 5"),
    (numbers, (), GOOD | {"named": [1]}, "named", "Expected `object`, got `array`"),
    (numbers, (), GOOD | {"positive": {"number": -1}}, "positive", "must not be negative"),
    (numbers, (), GOOD | {"positive": {"number": 13}}, None, "an unlucky number"),
    (numbers, (), GOOD | {"positive": {"number": 99}}, None, "KeyError$"),
    (numbers, (), GOOD | {"path": 5}, "path", "Expected `str`, got `int`"),
    (send, (Custom(),), {}, "to", "values of type Custom cannot be represented as JSON"),
    (send, ("a",), {"size": [Custom()]}, "size", "values of type Custom cannot be represented as JSON"),
    (send, ("a\ud800",), {}, "to", "surrogates not allowed"),
    (send, ("a",), {"cc": Custom()}, "cc", "values of type Custom cannot be represented as JSON"),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "argument", "problem"), MISFITS)
def test_misfits_name_the_argument(function, args, kwargs, argument, problem):
    """A call that does not fit is refused before anything is sent, and the error names the argument."""
    with pytest.raises(ArgumentsError, match=problem) as caught:
        sign(function).bind(args, kwargs)
    assert (caught.value.task, caught.value.argument) == ("t", argument)
    assert str(caught.value).startswith(f"task 't': argument {argument!r}: " if argument else "task 't': arguments: ")


def test_the_good_call_of_the_table_fits():
    """The calls above fail for the one reason that they show."""
    sign(numbers).bind((), GOOD)
    sign(send).bind(("a",), {})


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ([1, 2], "must be a mapping of names to values, not list$"),
        ("to", "must be a mapping of names to values, not str$"),
        (None, "must be a mapping of names to values, not NoneType$"),
        ({1: 2}, "names must be text$"),
        ({"a": 1, None: 2}, "names must be text$"),
        ({"\ud800": 1}, "surrogates not allowed$"),
    ],
)
def test_arguments_that_are_no_mapping_of_names(named, problem):
    """Arguments as a whole can be wrong, and the message says so once."""
    with pytest.raises(ArgumentsError, match=f"^task 't': arguments: (?!task).*{problem}") as caught:
        encode_arguments("t", named)
    assert caught.value.argument is None


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("raw", "argument"),
    [
        (b"", None),
        (b"garbage", None),
        (b"null", None),
        (b"[1]", None),
        (b'{"to":"a"', None),
        (b'{"to":"\xff"}', None),
        (b'{"to":' + DEEP + b"}", "to"),
        (b'{"cc":' + DEEP + b"}", "cc"),
        (b'{"to":"a","address":' + DEEP + b"}", "address"),
        (b'{"size":1}', "to"),
    ],
)
def test_stored_arguments_that_do_not_fit(raw, argument):
    """What a worker cannot decode is refused with the one error that it expects, whatever is wrong."""
    with pytest.raises(ArgumentsError) as caught:
        sign(send).decode(msgspec.Raw(raw))
    assert caught.value.task == "t"
    assert caught.value.argument == argument


@pytest.mark.parametrize("raw", [DEEP, b'{"a":' + DEEP + b"}", b'{"a":"\xff"}'])
def test_arguments_nested_too_deeply(raw):
    """Depth and encoding are refused likewise where anything goes."""
    with pytest.raises(ArgumentsError):
        decode_arguments("t", msgspec.json.Decoder(), raw)


async def test_async_functions_are_called_alike():
    """Of an async function the call gives what is to be awaited."""

    async def function(context: TaskContext, a: int) -> int:
        await trio.lowlevel.checkpoint()
        return a + 1

    assert await run(function, 1) == 2
