"""When, and on what, tasks are retried."""

from __future__ import annotations

import math
from datetime import timedelta

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_trio.errors import InvalidOptionError
from stem_trio.retry import Backoff, ExponentialJitterRetryStrategy, FixedRetryStrategy, RetryPolicy

HUGE = [1024, 10**6, 10**400]


# --- the worker's strategy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "full"), [(0, 2.0), (1, 4.0), (2, 8.0), (7, 256.0), (8, 300.0), (9, 300.0), *((n, 300.0) for n in HUGE)]
)
def test_exponential_waits(attempt, full):
    """The wait doubles from two seconds up to five minutes, less at most a quarter, however often it has failed."""
    strategy = ExponentialJitterRetryStrategy()
    waits = [strategy.next_delay(attempt, None) for _ in range(200)]
    assert all(full * 0.75 < wait <= full for wait in waits)
    # The jitter uses its range: 200 uniform draws leave either end empty once in 10**9 runs.
    assert min(waits) < full * 0.775
    assert max(waits) > full * 0.975


@settings(deadline=None)
@given(base=st.floats(0.001, 1e6), ratio=st.floats(1.0, 1e6), attempt=st.integers(0, 10**9), seed=st.integers(0, 2**32))
def test_waits_stay_within_their_bounds(base, ratio, attempt, seed):
    """Whatever the numbers, the wait is more than three quarters of the capped power and never above the cap."""
    cap = base * ratio
    wait = ExponentialJitterRetryStrategy(base, cap, seed=seed).next_delay(attempt, None)
    full = min(math.ldexp(base, min(attempt, 60)), cap)
    assert full * 0.75 <= wait <= full


def test_the_default_cap_grows_with_the_base():
    """The cap is 150 times the base unless it is given, so that a long base is possible."""
    assert ExponentialJitterRetryStrategy().max == 300.0
    assert ExponentialJitterRetryStrategy(base=0.2).max == pytest.approx(30.0)
    strategy = ExponentialJitterRetryStrategy(base=600)
    assert strategy.max == 90_000.0
    assert 450.0 < strategy.next_delay(0, None) <= 600.0
    assert 67_500.0 < strategy.next_delay(50, None) <= 90_000.0


def test_a_seed_makes_the_waits_repeatable():
    """Equal seeds give equal sequences, other seeds others, and no seed another one each time."""

    def sequence(seed: int | None) -> list[float]:
        strategy = ExponentialJitterRetryStrategy(base=0.2, max=1.0, seed=seed)
        return [strategy.next_delay(attempt, None) for attempt in range(10)]

    assert sequence(7) == sequence(7)
    assert sequence(0) == sequence(0)
    assert sequence(7) != sequence(8)
    assert sequence(None) != sequence(None)


def test_seeded_strategies_do_not_share_their_randomness():
    """A seed belongs to one strategy: another one in between changes nothing."""
    alone = ExponentialJitterRetryStrategy(seed=1)
    expected = [alone.next_delay(0, None) for _ in range(2)]
    one, two = ExponentialJitterRetryStrategy(seed=1), ExponentialJitterRetryStrategy(seed=2)
    first = one.next_delay(0, None)
    two.next_delay(0, None)
    assert [first, one.next_delay(0, None)] == expected


def test_strategies_take_timedeltas():
    """Durations may be timedeltas."""
    strategy = ExponentialJitterRetryStrategy(base=timedelta(seconds=1), max=timedelta(minutes=1))
    assert (strategy.base, strategy.max) == (1.0, 60.0)
    assert FixedRetryStrategy(timedelta(minutes=1)).delay == 60.0


@pytest.mark.parametrize(
    ("arguments", "option", "remedy"),
    [
        ({"base": 0}, "base", "must be more than 0"),
        ({"base": -1}, "base", "must be more than 0"),
        ({"base": "2"}, "base", "must be a finite number of seconds or a timedelta"),
        ({"max": 0}, "max", "must be more than 0"),
        ({"max": math.inf}, "max", "must be a finite number of seconds or a timedelta"),
        ({"max": 1.9}, "max", "must not be less than base (2 s)"),
    ],
)
def test_bad_strategies(arguments, option, remedy):
    """A strategy that makes no sense is refused by name."""
    with pytest.raises(InvalidOptionError) as caught:
        ExponentialJitterRetryStrategy(**arguments)
    assert caught.value.option == option
    assert str(caught.value).endswith(remedy)


def test_a_cap_equal_to_the_base_is_a_constant_wait():
    """The cap may be as low as the base."""
    strategy = ExponentialJitterRetryStrategy(base=2, max=2, seed=1)
    assert all(1.5 < strategy.next_delay(attempt, None) <= 2.0 for attempt in range(50))


@pytest.mark.parametrize("attempt", [0, 1, *HUGE])
def test_fixed_waits(attempt):
    """The fixed strategy waits the same each time."""
    assert FixedRetryStrategy(5).next_delay(attempt, ValueError()) == 5.0
    assert FixedRetryStrategy().next_delay(attempt, None) == 0.0


def test_bad_fixed_strategy():
    """A negative wait is refused by name."""
    with pytest.raises(InvalidOptionError, match="delay=-1: must not be negative"):
        FixedRetryStrategy(-1)


def test_strategies_print_what_they_do():
    """A strategy in a log says what it does."""
    assert repr(ExponentialJitterRetryStrategy(0.5, 10)) == "ExponentialJitterRetryStrategy(base=0.5, max=10)"
    assert repr(FixedRetryStrategy(5)) == "FixedRetryStrategy(5)"


# --- the numbers of a policy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backoff", "attempt", "rand", "delay"),
    [
        (Backoff(), 0, 0.0, 2.0),
        (Backoff(), 1, 0.0, 4.0),
        (Backoff(), 0, 0.5, 1.75),
        (Backoff(), 20, 0.0, 300.0),
        (Backoff(), 20, 1.0, 225.0),
        (Backoff(base=1, factor=3, max=60, jitter=0), 2, 0.9, 9.0),
        (Backoff(base=1, factor=3, max=60, jitter=0), 4, 0.9, 60.0),
        (Backoff(base=5, factor=1, jitter=0), 10**6, 0.5, 5.0),
        (Backoff(base=1, factor=1.001, max=1e6, jitter=0), 2000, 0.0, 1.001**2000),
        (Backoff(base=8, jitter=1), 0, 0.75, 2.0),
        (Backoff(base=0, factor=10, max=300), 0, 0.5, 0.0),
        (Backoff(base=0, factor=10, max=300), 400, 0.5, 0.0),
        (Backoff(base=0, factor=10, max=300), 10**400, 0.5, 0.0),
        *((Backoff(jitter=0), attempt, 0.0, 300.0) for attempt in HUGE),
    ],
)
def test_backoff(backoff, attempt, rand, delay):
    """The wait is base times a power of the factor, capped, less the random part; no number overflows."""
    assert backoff.delay(attempt, rand) == pytest.approx(delay)


def test_backoff_travels_short():
    """Numbers that are the default are not sent."""
    assert msgspec.json.encode(Backoff()) == b"{}"
    assert msgspec.json.decode(b'{"base":1.5}', type=Backoff) == Backoff(base=1.5)


# --- the policy of a task ---------------------------------------------------------------------------------------------


def test_policy_defaults():
    """A policy that says nothing retries on any `Exception`, as the default strategy waits."""
    policy = RetryPolicy()
    assert (policy.retry_on, policy.never_retry) == ((Exception,), ())
    assert policy.backoff == Backoff(base=2.0, factor=2.0, max=300.0, jitter=0.25)
    assert not policy.filters


def test_policy_numbers():
    """Waits of a policy are its backoff in seconds."""
    policy = RetryPolicy(base=timedelta(seconds=1), factor=3, max=timedelta(minutes=1), jitter=0)
    assert policy.backoff == Backoff(base=1.0, factor=3.0, max=60.0, jitter=0.0)
    assert {type(value) for value in msgspec.structs.astuple(policy.backoff)} == {float}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (KeyError, (KeyError,)),
        ((KeyError, OSError), (KeyError, OSError)),
        ([KeyError, OSError], (KeyError, OSError)),
        ({KeyError}, (KeyError,)),
        (frozenset({KeyError}), (KeyError,)),
        ((), ()),
    ],
)
@pytest.mark.parametrize("field", ["retry_on", "never_retry"])
def test_exception_classes_are_kept_as_a_tuple(field, given, kept):
    """One class or any collection of classes can be given."""
    assert getattr(RetryPolicy(**{field: given}), field) == kept


@pytest.mark.parametrize("value", [None, 5, "KeyError", KeyError(), int, (KeyError, int), ("KeyError",), [list[int]]])
@pytest.mark.parametrize("field", ["retry_on", "never_retry"])
def test_what_is_no_exception_class_is_refused(field, value):
    """Anything but classes of exceptions is refused by name."""
    with pytest.raises(InvalidOptionError, match=f"^{field}=.*must be an exception class or a tuple of them$"):
        RetryPolicy(**{field: value})


@pytest.mark.parametrize(
    ("arguments", "option", "remedy"),
    [
        ({"base": -1}, "base", "must not be negative"),
        ({"base": None}, "base", "must be a finite number of seconds or a timedelta"),
        ({"factor": 0.9}, "factor", "must be at least 1"),
        ({"factor": math.inf}, "factor", "must be a finite number"),
        ({"max": -1}, "max", "must not be negative"),
        ({"max": 1}, "max", "must not be less than base (2 s)"),
        ({"base": 600}, "max", "must not be less than base (600 s)"),
        ({"jitter": -0.1}, "jitter", "must be at least 0"),
        ({"jitter": 1.1}, "jitter", "must be at most 1"),
    ],
)
def test_bad_policies(arguments, option, remedy):
    """A policy that makes no sense is refused by name."""
    with pytest.raises(InvalidOptionError) as caught:
        RetryPolicy(**arguments)
    assert caught.value.option == option
    assert str(caught.value).endswith(remedy)


@pytest.mark.parametrize("arguments", [{"base": 0, "max": 0}, {"base": 2, "max": 2}, {"factor": 1}, {"jitter": 1}])
def test_ends_of_the_ranges(arguments):
    """Both ends of each range are legal."""
    RetryPolicy(**arguments)


RETRIES = [
    # retry_on, never_retry, error, whether it is worth another run
    (Exception, (), ValueError(), True),
    (Exception, (), BaseException(), False),
    (Exception, (), KeyboardInterrupt(), False),
    (OSError, (), OSError(), True),
    (OSError, (), ConnectionRefusedError(), True),  # a subclass of what is listed
    (OSError, (), ValueError(), False),
    (ConnectionRefusedError, (), OSError(), False),  # a base class of what is listed
    ((OSError, KeyError), (), KeyError(), True),
    ((), (), ValueError(), False),
    (Exception, KeyError, KeyError(), False),
    (Exception, LookupError, KeyError(), False),  # a subclass of what is ruled out
    (Exception, KeyError, LookupError(), True),
    (ConnectionError, ConnectionRefusedError, ConnectionResetError(), True),
    (ConnectionError, ConnectionRefusedError, ConnectionRefusedError(), False),
    (KeyError, LookupError, KeyError(), False),  # never_retry beats retry_on, though it names it more exactly
    (KeyError, KeyError, KeyError(), False),
    # A group, as nurseries raise it.
    (OSError, (), ExceptionGroup("", [OSError(), ConnectionError()]), True),
    (OSError, (), ExceptionGroup("", [OSError(), ValueError()]), False),
    (OSError, (), ExceptionGroup("", [ExceptionGroup("", [OSError()])]), True),
    (OSError, (), ExceptionGroup("", [ExceptionGroup("", [KeyError()])]), False),
    (OSError, ConnectionError, ExceptionGroup("", [OSError(), ConnectionError()]), False),
    (Exception, ExceptionGroup, ExceptionGroup("", [OSError()]), False),
    (Exception, (), BaseExceptionGroup("", [OSError(), KeyboardInterrupt()]), False),
]


@pytest.mark.parametrize(("retry_on", "never_retry", "error", "worth"), RETRIES)
def test_what_is_retried(retry_on, never_retry, error, worth):
    """Classes count with their subclasses, `never_retry` beats `retry_on`, and a group is what all of it is."""
    assert RetryPolicy(retry_on=retry_on, never_retry=never_retry).retries(error) is worth


@pytest.mark.parametrize(
    ("arguments", "filters"),
    [
        ({}, False),
        ({"base": 1, "jitter": 0}, False),
        ({"retry_on": [Exception]}, False),
        ({"retry_on": OSError}, True),
        ({"retry_on": ()}, True),
        ({"never_retry": OSError}, True),
    ],
)
def test_filters(arguments, filters):
    """A policy that only says how long to wait can travel with a call; one that names classes cannot."""
    assert RetryPolicy(**arguments).filters is filters


def test_policies_compare_by_value():
    """Policies can stand in options, which compare and hash."""
    assert RetryPolicy(base=1) == RetryPolicy(base=1)
    assert hash(RetryPolicy(base=1)) == hash(RetryPolicy(base=1))
    assert RetryPolicy(base=1) != RetryPolicy(base=2)
    assert "backoff" not in repr(RetryPolicy())


def test_policies_are_immutable():
    """A policy can be shared: nobody changes it."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RetryPolicy().base = 5
