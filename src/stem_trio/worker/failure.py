"""From what a handler raised to the outcome of the run."""

from __future__ import annotations

import logging
import math
import random
import traceback
from typing import TYPE_CHECKING, Final, final

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

_logger = logging.getLogger(__name__)


def describe(error: BaseException, *, retryable: bool = True) -> TaskError:
    """An exception as text: type, message, and the traceback, cut in the middle when it is very long."""
    text = "".join(traceback.format_exception(error))
    if len(text) > _TRACEBACK_HEAD + _TRACEBACK_TAIL:
        text = f"{text[:_TRACEBACK_HEAD]}\n... shortened ...\n{text[-_TRACEBACK_TAIL:]}"
    return TaskError(type=type_name(type(error)), message=str(error), traceback=text, retryable=retryable)


def _retry_request(error: BaseException) -> TaskRetryRequest | None:
    """The request for a retry that an exception is, or a nursery has wrapped."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, TaskRetryRequest) else None


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
            delay = request.after if request.after is not None else self._delay(held, error)
            return RetryRequested(describe(request), delay, request.reason)
        policy = held.definition.effective.retry_policy if held.definition is not None else None
        if policy is None:
            # Whatever a handler lets out is its failure, SystemExit included: it must not end the worker.
            retryable = True
        else:
            retryable = policy.retries(error)
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
            return backoff.delay(attempt, random.random())
        try:
            delay = float(self._strategy.next_delay(attempt, error))
            if math.isfinite(delay) and delay >= 0:
                return delay
            _logger.error("%r returned %r, which is no number of seconds; using the default", self._strategy, delay)
        except Exception:
            # A faulty strategy must not take the worker down: the task would be given back, and take down the next.
            _logger.exception("%r failed; using the default strategy", self._strategy)
        return self._fallback.next_delay(attempt, error)
