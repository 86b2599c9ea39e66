"""Outcomes and settlements as records."""

from __future__ import annotations

import msgspec
import pytest

from stem_trio import outcome as module
from stem_trio.outcome import (
    Complete,
    DeadLetterReason,
    Expired,
    Failed,
    Interrupted,
    LeaseLost,
    MoveToDead,
    Outcome,
    Release,
    Retry,
    RetryRequested,
    Revoked,
    Settlement,
    Succeeded,
    TimedOut,
)

from .support import BOOM

OUTCOMES = [
    Succeeded(msgspec.Raw(b"1")),
    Failed(BOOM, 2.0, "poison"),
    TimedOut(BOOM, 2.0),
    RetryRequested(BOOM, 2.0, "busy"),
    Revoked("by hand"),
    Expired(),
    Interrupted(),
    LeaseLost(),
]
SETTLEMENTS = [Complete(), Retry(2.0), MoveToDead("poison", "boom"), Release()]


def test_nothing_is_missing_here():
    """Every outcome and settlement of the module appears in the lists above."""
    kinds = [value for value in vars(module).values() if isinstance(value, type)]
    assert {type(o) for o in OUTCOMES} == {k for k in kinds if issubclass(k, Outcome)} - {Outcome}
    assert {type(s) for s in SETTLEMENTS} == {k for k in kinds if issubclass(k, Settlement)} - {Settlement}


@pytest.mark.parametrize("record", [*OUTCOMES, *SETTLEMENTS], ids=lambda record: type(record).__name__)
def test_records_cross_processes(record):
    """Each record is carried by JSON as it is, and compares by value."""
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record


@pytest.mark.parametrize("record", [*OUTCOMES, *SETTLEMENTS], ids=lambda record: type(record).__name__)
def test_records_are_immutable(record):
    """Nobody changes what was decided."""
    for field in record.__struct_fields__ or ("anything",):
        with pytest.raises(AttributeError):
            setattr(record, field, None)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (Succeeded(), Succeeded(value=None)),
        (Failed(BOOM), Failed(error=BOOM, delay=0.0, reason=None)),
        (TimedOut(BOOM), TimedOut(error=BOOM, delay=0.0)),
        (RetryRequested(BOOM, 1.0), RetryRequested(error=BOOM, delay=1.0, reason=None)),
        (Revoked(), Revoked(reason=None)),
        (Retry(), Retry(delay=0.0)),
        (MoveToDead("x"), MoveToDead(reason="x", detail="")),
    ],
)
def test_defaults(short, long):
    """What is left out has the documented value."""
    assert short == long


def test_reasons_are_text():
    """A dead-letter reason is stored, compared and printed as the text it is."""
    assert [f"{reason}" for reason in DeadLetterReason] == [
        "max-retries-exhausted",
        "not-retryable",
        "unregistered-task",
        "invalid-arguments",
        "unserializable-result",
        "poison",
        "signature-invalid",
        "unreadable",
    ]
