"""Per-task options, each with an effect; what is not set is told apart from what is set to its default."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Literal, final

import attrs

from ._validate import duration, integer, queue_name
from .errors import InvalidOptionError
from .retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["UNSET", "EffectiveOptions", "Isolation", "TaskOptions", "Unset"]

MAX_PRIORITY: Final = 9


@final
class Unset(enum.Enum):
    """Type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> Literal[False]:
        return False


UNSET: Final = Unset.UNSET
"""Stands for an option that the caller said nothing about, so that a call can set one back to its default."""

Isolation = Literal["inline", "thread"]
"""Where a handler runs: on the trio loop, or in a worker thread."""


@final
@attrs.frozen(kw_only=True)
class EffectiveOptions:
    """All options of one task with their values; durations are seconds, None stands for "no limit"."""

    queue: str = "default"
    max_retries: int = 0
    priority: int = 0
    visibility_timeout: float = 30.0
    soft_time_limit: float | None = None
    hard_time_limit: float | None = None
    expires: float | None = None
    retry_policy: RetryPolicy | None = None
    max_strikes: int = 3
    result_ttl: float = 86_400.0
    ignore_result: bool = False
    isolation: Isolation | None = None


@final
@attrs.frozen(kw_only=True)
class TaskOptions:
    """Options of a task, or of one call to it; what a call leaves `UNSET` comes from the task, then from the defaults.

    Durations are seconds (float) or `datetime.timedelta`.

    Args:
        queue: queue that the task waits in. Default ``"default"``.
        max_retries: runs allowed after the first failed one. Default 0.
        priority: 0 to 9; higher starts first within its queue. Default 0.
        visibility_timeout: length of the lease under which a worker holds the task; renewed at a third of it for as
            long as the task runs, so it bounds how long a dead worker holds a task, not how long a task may run.
            Default 30 s, at least 0.05 s.
        soft_time_limit: after this long in the handler `TaskContext.soft_limit_reached` is set, a signal is sent, and
            blocks under `TaskContext.raise_at_soft_limit` end with an error. Default None.
        hard_time_limit: after this long in the handler the run is cancelled and counts as failed. Default None.
        expires: a task not started this long after it was enqueued is dropped as expired. Default None.
        retry_policy: on what to retry and how long to wait. Default None: the worker's strategy, on any `Exception`.
            Given with a single call, it must leave `retry_on` and `never_retry` alone: classes do not travel.
        max_strikes: hand-outs in a row that may end without any outcome (the worker died, or lost its lease) before
            the task is put with the dead letters as ``poison``. Default 3.
        result_ttl: how long status and result are kept after the end. Default one day.
        ignore_result: keep the status, not the returned value. Default False.
        isolation: ``"inline"`` on the trio loop (default for async functions) or ``"thread"`` (default for sync ones).
            Belongs to the task; refused with a single call.

    Raises:
        InvalidOptionError: a value is not allowed; the message names the option.
    """

    queue: str | Unset = UNSET
    max_retries: int | Unset = UNSET
    priority: int | Unset = UNSET
    visibility_timeout: float | timedelta | Unset = UNSET
    soft_time_limit: float | timedelta | None | Unset = UNSET
    hard_time_limit: float | timedelta | None | Unset = UNSET
    expires: float | timedelta | None | Unset = UNSET
    retry_policy: RetryPolicy | None | Unset = UNSET
    max_strikes: int | Unset = UNSET
    result_ttl: float | timedelta | Unset = UNSET
    ignore_result: bool | Unset = UNSET
    isolation: Isolation | Unset = UNSET

    def __attrs_post_init__(self) -> None:
        for name, value in self.items():
            object.__setattr__(self, name, _CHECKS[name](value))
        soft, hard = self.soft_time_limit, self.hard_time_limit
        if isinstance(soft, float) and isinstance(hard, float) and soft >= hard:
            raise InvalidOptionError("soft_time_limit", soft, f"must be less than hard_time_limit ({hard:g} s)")

    def items(self) -> list[tuple[str, object]]:
        """The options that are set."""
        pairs = ((name, getattr(self, name)) for name in _FIELDS)
        return [(name, value) for name, value in pairs if value is not UNSET]

    def merge(self, over: TaskOptions) -> TaskOptions:
        """These options, with what `over` sets taking their place."""
        changes: dict[str, Any] = dict(over.items())
        return attrs.evolve(self, **changes)

    def effective(self) -> EffectiveOptions:
        """These options with defaults in place of what is not set."""
        values: dict[str, Any] = dict(self.items())
        return EffectiveOptions(**values)


def _optional_duration(name: str, value: object) -> float | None:
    return None if value is None else duration(name, value, positive=True)


def _visibility(value: object) -> float:
    seconds = duration("visibility_timeout", value, positive=True)
    if seconds < 0.05:
        raise InvalidOptionError("visibility_timeout", value, "must be at least 0.05 s")
    return seconds


def _policy(value: object) -> RetryPolicy | None:
    if value is not None and not isinstance(value, RetryPolicy):
        raise InvalidOptionError("retry_policy", value, "must be a RetryPolicy or None")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidOptionError("ignore_result", value, "must be True or False")
    return value


def _isolation(value: object) -> object:
    if value not in ("inline", "thread"):
        raise InvalidOptionError("isolation", value, "must be 'inline' or 'thread'")
    return value


_CHECKS: Final[dict[str, Callable[[object], object]]] = {
    "queue": lambda v: queue_name("queue", v),
    "max_retries": lambda v: integer("max_retries", v),
    "priority": lambda v: integer("priority", v, maximum=MAX_PRIORITY),
    "visibility_timeout": _visibility,
    "soft_time_limit": lambda v: _optional_duration("soft_time_limit", v),
    "hard_time_limit": lambda v: _optional_duration("hard_time_limit", v),
    "expires": lambda v: _optional_duration("expires", v),
    "retry_policy": _policy,
    "max_strikes": lambda v: integer("max_strikes", v, minimum=1),
    "result_ttl": lambda v: duration("result_ttl", v, positive=True),
    "ignore_result": _flag,
    "isolation": _isolation,
}
_FIELDS: Final = tuple(field.name for field in attrs.fields(TaskOptions))
