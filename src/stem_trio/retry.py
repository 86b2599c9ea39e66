"""When a failed task runs again: the worker's strategy, and the policy of one task."""

from __future__ import annotations

import inspect
import random
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Protocol, cast, final

import attrs
import msgspec

from ._validate import duration, number
from .errors import InvalidOptionError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Backoff", "ExponentialJitterRetryStrategy", "FixedRetryStrategy", "RetryPolicy", "RetryStrategy"]

_CAP_RATIO: Final = 150.0
"""Default cap as a multiple of the base: five minutes for the default base of two seconds."""


class RetryStrategy(Protocol):
    """Decides how long a failed task waits before it runs again."""

    def next_delay(self, attempt: int, error: BaseException | None) -> float:
        """Seconds to wait.

        Args:
            attempt: number of the run that has just failed, 0 for the first.
            error: what it failed with, where known.
        """
        ...


def _exponential(base: float, factor: float, cap: float, attempt: int) -> float:
    if base == 0.0:
        return 0.0
    try:
        return min(base * factor**attempt, cap)
    except OverflowError:
        return cap  # too large for a float: the cap was reached long before


@final
class ExponentialJitterRetryStrategy:
    """``base * 2 ** attempt`` seconds, capped at `max`, minus a random part of up to a quarter.

    Jitter spreads the retries of tasks that failed together (the idea and its effect: M. Brooker, "Exponential Backoff
    and Jitter", AWS Architecture Blog, 2015). Taking it off the capped value keeps the spread at the cap too.

    Args:
        base: seconds (or timedelta) before the first retry.
        max: the longest wait; by default 150 times the base, which is five minutes for the default base.
        seed: makes the sequence of jitter repeatable.

    Raises:
        InvalidOptionError: base is not positive, or max is less than base.
    """

    __slots__ = ("_random", "base", "max")

    def __init__(
        self, base: float | timedelta = 2.0, max: float | timedelta | None = None, *, seed: int | None = None
    ) -> None:
        self.base = duration("base", base, positive=True)
        self.max = self.base * _CAP_RATIO if max is None else duration("max", max, positive=True)
        if self.max < self.base:
            raise InvalidOptionError("max", max, f"must not be less than base ({self.base:g} s)")
        self._random = random.Random(seed)

    def __repr__(self) -> str:
        return f"ExponentialJitterRetryStrategy(base={self.base:g}, max={self.max:g})"

    def next_delay(self, attempt: int, error: BaseException | None) -> float:  # noqa: ARG002 - see RetryStrategy
        """Seconds to wait after the failed run number `attempt`."""
        return _exponential(self.base, 2.0, self.max, attempt) * (1.0 - self._random.random() / 4.0)


@final
class FixedRetryStrategy:
    """The same wait before every retry.

    Args:
        delay: seconds (or timedelta).
    """

    __slots__ = ("delay",)

    def __init__(self, delay: float | timedelta = 0.0) -> None:
        self.delay = duration("delay", delay)

    def __repr__(self) -> str:
        return f"FixedRetryStrategy({self.delay:g})"

    def next_delay(self, attempt: int, error: BaseException | None) -> float:  # noqa: ARG002 - see RetryStrategy
        """Always the same number of seconds."""
        return self.delay


@final
class Backoff(msgspec.Struct, frozen=True, omit_defaults=True):
    """The numbers of a retry policy, as they travel in an envelope.

    The wait after run `attempt` is ``base * factor ** attempt``, at most `max`, minus a random part of up to
    `jitter` times that. Durations are seconds.
    """

    base: float = 2.0
    factor: float = 2.0
    max: float = 300.0
    jitter: float = 0.25

    def delay(self, attempt: int, rand: float) -> float:
        """Seconds to wait after run `attempt`; `rand` is a random number from 0 to below 1."""
        return _exponential(self.base, self.factor, self.max, attempt) * (1.0 - self.jitter * rand)


_ExceptionTypes = tuple[type[BaseException], ...]


def _are_exception_types(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    return all(inspect.isclass(kind) and issubclass(kind, BaseException) for kind in cast("tuple[object, ...]", value))


def _exception_types(
    instance: object,  # noqa: ARG001 - what attrs calls a validator with
    attribute: attrs.Attribute[_ExceptionTypes],
    value: object,
) -> None:
    if not _are_exception_types(value):
        raise InvalidOptionError(attribute.name, value, "must be an exception class or a tuple of them")


def _to_types(value: type[BaseException] | Collection[type[BaseException]]) -> _ExceptionTypes:
    if isinstance(value, type):
        return (value,)
    # What is no collection either stays as it is, for the validator to refuse by name.
    return tuple(value) if isinstance(value, Collection) else value


@final
@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How one task is retried, in place of the worker's strategy.

    How often is told by `TaskOptions.max_retries`; this says on what, and how long to wait.

    Args:
        retry_on: classes of exceptions, subclasses included, that are worth another run.
        never_retry: classes that are not, subclasses included; they beat `retry_on`.
        base: seconds (or timedelta) before the first retry; 0 retries at once.
        factor: what each further wait is multiplied by; 1 for a constant wait.
        max: the longest wait.
        jitter: the part of the wait, 0 to 1, that is taken off at random.

    Raises:
        InvalidOptionError: a value is out of its range; the message names it.
    """

    retry_on: tuple[type[BaseException], ...] = attrs.field(
        default=(Exception,), converter=_to_types, validator=_exception_types
    )
    never_retry: tuple[type[BaseException], ...] = attrs.field(
        default=(), converter=_to_types, validator=_exception_types
    )
    base: float | timedelta = 2.0
    factor: float = 2.0
    max: float | timedelta = 300.0
    jitter: float = 0.25
    backoff: Backoff = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        backoff = Backoff(
            base=duration("base", self.base),
            factor=number("factor", self.factor, minimum=1.0),
            max=duration("max", self.max),
            jitter=number("jitter", self.jitter, minimum=0.0, maximum=1.0),
        )
        if backoff.max < backoff.base:
            raise InvalidOptionError("max", self.max, f"must not be less than base ({backoff.base:g} s)")
        object.__setattr__(self, "backoff", backoff)

    @property
    def filters(self) -> bool:
        """Whether the policy looks at the exception at all."""
        return self.retry_on != (Exception,) or bool(self.never_retry)

    def retries(self, error: BaseException) -> bool:
        """Whether this exception is worth another run.

        A group, as nurseries raise it, is worth one when each exception in it is.
        """
        if isinstance(error, BaseExceptionGroup) and not isinstance(error, self.never_retry):
            group = cast("BaseExceptionGroup[BaseException]", error)
            return all(self.retries(inner) for inner in group.exceptions)
        return isinstance(error, self.retry_on) and not isinstance(error, self.never_retry)
