"""From what a handler raised to the outcome of the run."""

from __future__ import annotations

import logging
import math
import random
import traceback
from typing import TYPE_CHECKING, Any, Final, final

from ..errors import TaskRetryRequest, type_name
from ..outcome import DeadLetterReason, Failed, Outcome, RetryRequested, TimedOut
from ..retry import ExponentialJitterRetryStrategy
from ..status import TaskError

if TYPE_CHECKING:
    from ..abc import RetryStrategy
    from .held import Held

__all__ = ["FailurePolicy", "describe"]

_TRACEBACK_HEAD: Final = 4_000
_TRACEBACK_TAIL: Final = 12_000
_MESSAGE_HEAD: Final = 2_000
_MESSAGE_TAIL: Final = 2_000
_LONGEST_DELAY: Final = 10 * 365 * 86_400.0
"""As for the producer. What lies beyond the calendar cannot be told of as a date."""

_logger = logging.getLogger(__name__)


def describe(error: BaseException, *, retryable: bool = True) -> TaskError:
    """An exception as text: type, message, and the traceback; both cut in the middle when they are very long.

    Never fails, and the text can be stored anywhere: an exception that cannot be described is still one that a handler
    has raised, and must not take the worker down.
    """
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception as problem:  # noqa: BLE001 - it calls code of the exception's
        trace = f"<no traceback: {type_name(type(problem))}>"
    return TaskError(
        type=type_name(type(error)),
        message=_storable(_text(error), _MESSAGE_HEAD, _MESSAGE_TAIL),
        traceback=_storable(trace, _TRACEBACK_HEAD, _TRACEBACK_TAIL),
        retryable=retryable,
    )


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as problem:  # noqa: BLE001 - it is code of the handler's
        return f"<no message: {type_name(type(problem))}>"


def _storable(text: str, head: int, tail: int) -> str:
    if len(text) > head + tail:
        text = f"{text[:head]}\n... shortened ...\n{text[-tail:]}"
    # Half a surrogate pair, as it comes with file names, is no unicode to anybody else.
    return text.encode("utf-8", "backslashreplace").decode()


def _retry_request(error: BaseException) -> TaskRetryRequest | None:
    """The request for a retry that an exception is, or a nursery has wrapped."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, TaskRetryRequest) else None


def _seconds(value: Any) -> float | None:
    """What a handler or a strategy gives as a delay, cut to the longest there is; None when it is no delay."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(seconds, _LONGEST_DELAY) if math.isfinite(seconds) and seconds >= 0 else None


@final
class FailurePolicy:
    """Decides whether a failure is worth another run, and when that is due.

    How long to wait is told, in this order, by the request of the handler itself, by the call (in the envelope), by
    the task's policy, by the worker's strategy. What is worth a run is told by the task's policy.
    """

    def __init__(self, strategy: RetryStrategy) -> None:
        self._strategy = strategy
        self._fallback = ExponentialJitterRetryStrategy()

    def failed(self, held: Held, error: BaseException) -> Outcome:
        """The outcome of a run whose handler raised."""
        request = _retry_request(error)
        if request is not None:
            delay = _seconds(request.after)
            if delay is None:
                delay = self._delay(held, error)
            why = request.reason
            if why is not None:
                why = _storable(_text(why), _MESSAGE_HEAD, _MESSAGE_TAIL)
            return RetryRequested(describe(request), delay, why)
        policy = held.definition.effective.retry_policy if held.definition is not None else None
        # Without a policy anything is: what a handler lets out is its failure, SystemExit included.
        retryable = policy is None or policy.retries(error)
        reason = None if retryable else str(DeadLetterReason.NOT_RETRYABLE)
        return Failed(describe(error, retryable=retryable), self._delay(held, error), reason)

    def timed_out(self, held: Held, error: BaseException) -> Outcome:
        """The outcome of a run that was cancelled at its hard limit."""
        return TimedOut(describe(error), self._delay(held, error))

    def _delay(self, held: Held, error: BaseException) -> float:
        attempt = held.delivery.attempt
        if attempt >= held.delivery.envelope.max_retries:
            return 0.0  # there is no next run to wait for
        backoff = held.delivery.envelope.backoff
        if backoff is None and held.definition is not None and held.definition.effective.retry_policy is not None:
            backoff = held.definition.effective.retry_policy.backoff
        if backoff is not None:
            return min(backoff.delay(attempt, random.random()), _LONGEST_DELAY)
        try:
            answer = self._strategy.next_delay(attempt, error)
            delay = _seconds(answer)
            if delay is not None:
                return delay
            _logger.error("%r returned %r, which is no number of seconds; using the default", self._strategy, answer)
        except Exception:
            # A faulty strategy must not take the worker down: the task would be given back, and take down the next.
            _logger.exception("%r failed; using the default strategy", self._strategy)
        return self._fallback.next_delay(attempt, error)
