"""Checks of single values."""

from __future__ import annotations

import enum
import math
from datetime import timedelta

import pytest

from stem_trio._validate import duration, integer, number, queue_name
from stem_trio.errors import InvalidOptionError


class Level(enum.IntEnum):
    HIGH = 7


class Queue(str, enum.Enum):  # noqa: UP042 - of both kinds, the one that prints as something else than its value
    MAIL = "mail"


NOT_NUMBERS = [None, "1", True, math.nan, math.inf, -math.inf, 10**400, -(10**400), 1j, [1]]


@pytest.mark.parametrize("value", [0, 1, -1.5, 1e300, Level.HIGH])
def test_number_accepts(value):
    """Finite ints and floats become floats of the same value."""
    result = number("x", value)
    assert result == value
    assert type(result) is float


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_number_refuses(value):
    """Everything else is refused by name, integers that no float can hold among it."""
    with pytest.raises(InvalidOptionError, match=r"^x=.*: must be a finite number$") as caught:
        number("x", value)
    assert caught.value.option == "x"
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("value", "problem"), [(0.9, "must be at least 1"), (2.6, "must be at most 2.5"), (1, None), (2.5, None)]
)
def test_number_bounds(value, problem):
    """Both bounds belong to the range."""
    if problem is None:
        assert number("x", value, minimum=1.0, maximum=2.5) == value
    else:
        with pytest.raises(InvalidOptionError, match=f"x={value}: {problem}$"):
            number("x", value, minimum=1.0, maximum=2.5)


@pytest.mark.parametrize("value", [0, 5, 10**30, Level.HIGH])
def test_integer_accepts(value):
    """Ints stay what they are; members of an IntEnum become their number."""
    result = integer("x", value)
    assert result == value
    assert type(result) is int


@pytest.mark.parametrize("value", [None, "1", True, 1.0, math.nan])
def test_integer_refuses(value):
    """Nothing else is an integer, a bool or a whole float neither."""
    with pytest.raises(InvalidOptionError, match=r"^x=.*: must be an integer$"):
        integer("x", value)


@pytest.mark.parametrize(
    ("value", "problem"), [(-1, "must be at least 0"), (10, "must be at most 9"), (0, None), (9, None)]
)
def test_integer_bounds(value, problem):
    """The least value is 0 unless told; both bounds belong to the range."""
    if problem is None:
        assert integer("x", value, maximum=9) == value
    else:
        with pytest.raises(InvalidOptionError, match=f"x={value}: {problem}$"):
            integer("x", value, maximum=9)


def test_integer_minimum():
    """Another least value can be told."""
    assert integer("x", -3, minimum=-3) == -3
    with pytest.raises(InvalidOptionError, match="must be at least -3"):
        integer("x", -4, minimum=-3)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (3, 3.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        (timedelta(0), 0.0),
        (timedelta.max, 86399999999999.999999),
    ],
)
def test_duration_accepts(value, seconds):
    """Numbers are seconds, timedeltas are converted."""
    result = duration("x", value)
    assert result == seconds
    assert type(result) is float


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_duration_refuses(value):
    """What is neither a finite number nor a timedelta is refused by name."""
    with pytest.raises(InvalidOptionError, match=r"^x=.*: must be a finite number of seconds or a timedelta$"):
        duration("x", value)


@pytest.mark.parametrize("value", [-1, -0.001, timedelta(seconds=-1)])
@pytest.mark.parametrize(("positive", "problem"), [(False, "must not be negative"), (True, "must be more than 0")])
def test_negative_durations(value, positive, problem):
    """No duration is negative; the error shows the value as it was given."""
    with pytest.raises(InvalidOptionError, match=f"{problem}$") as caught:
        duration("x", value, positive=positive)
    assert caught.value.value is value


@pytest.mark.parametrize("value", [0, 0.0, timedelta(0)])
def test_zero_is_not_positive(value):
    """Where a duration must be positive, zero is refused, and the least bit more is not."""
    with pytest.raises(InvalidOptionError, match="must be more than 0"):
        duration("x", value, positive=True)
    assert duration("x", 5e-324, positive=True) > 0


@pytest.mark.parametrize("name", ["default", "a", "a b", "a:b/c{d}", "größe", "日本", "x" * 200])
def test_queue_names(name):
    """Names may hold separators, blanks inside, and any script."""
    assert queue_name("queue", name) == name


@pytest.mark.parametrize("name", [None, 1, b"q", "", " ", " q", "q ", "a\nb", "a\0b", "a\u00a0b", "\ud800"])
def test_bad_queue_names(name):
    """Empty names, blanks around, control characters and what is no text are refused by name."""
    with pytest.raises(
        InvalidOptionError, match="must be a non-empty printable string without blanks around it"
    ) as caught:
        queue_name("queue", name)
    assert caught.value.option == "queue"


def test_long_queue_names():
    """A name has a greatest length."""
    with pytest.raises(InvalidOptionError, match="must have at most 200 characters"):
        queue_name("queue", "x" * 201)


def test_a_queue_name_from_an_enum_is_plain_text():
    """The member of a text enum becomes its text: stores build keys with it, in which it would print as its name."""
    name = queue_name("queue", Queue.MAIL)
    assert type(name) is str
    assert f"{name}" == "mail"
