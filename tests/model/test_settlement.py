"""The policy of how a run ends, cell by cell."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

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
    Succeeded,
    TimedOut,
)
from stem_trio.settlement import (
    LIVE_TTL,
    decide,
    purged_status,
    replayed_status,
    running_status,
    submitted_status,
)
from stem_trio.status import Progress, TaskError, TaskState, TaskStatus

from .support import BOOM, make_delivery, make_envelope

NOW = 5000.0
VALUE = msgspec.Raw(b'{"n": 1}')
WEEK = 7 * 86_400.0
RESULT_TTL = 77.0
EXHAUSTED = "max-retries-exhausted"

# How many retries are left: (attempt, max_retries).
RETRIES = {
    "first of two left": (0, 2),
    "last left": (1, 2),
    "none left": (2, 2),
    "more runs than allowed": (3, 2),
    "never any": (0, 0),
}
LEFT = {"first of two left", "last left"}


def delivery_with(retries: str):
    """The third hand-out of a task that has failed and may fail as often as `retries` says."""
    attempt, max_retries = RETRIES[retries]
    envelope = make_envelope(max_retries=max_retries, result_ttl=RESULT_TTL, parent_id="id-0", root_id="id-00")
    return make_delivery(envelope, attempt=attempt, deliveries=3, strikes=1)


def status_of(delivery, state: TaskState, rank: int, ttl: float, **fields: Any) -> TaskStatus:
    """The record that is expected, with every field that all records have in common."""
    return TaskStatus(
        id="id-1",
        name="mail.send",
        queue="mail",
        state=state,
        version=3 * 8 + rank,
        updated_at=NOW,
        ttl=ttl,
        attempt=delivery.attempt,
        deliveries=3,
        worker="worker-1",
        started_at=4990.0,
        parent_id="id-0",
        root_id="id-00",
        **fields,
    )


# Every cell whose answer does not depend on the retries: outcome, state, rank, ttl, further fields, settlement.
ALWAYS = [
    (Succeeded(VALUE), TaskState.SUCCEEDED, 3, RESULT_TTL, {"value": VALUE}, Complete()),
    (Succeeded(None), TaskState.SUCCEEDED, 3, RESULT_TTL, {}, Complete()),
    (
        Failed(BOOM, 9.0, DeadLetterReason.NOT_RETRYABLE),
        TaskState.FAILED,
        3,
        RESULT_TTL,
        {"error": BOOM, "reason": "not-retryable"},
        MoveToDead("not-retryable", "ValueError: boom"),
    ),
    (
        Failed(BOOM, reason="my own reason"),
        TaskState.FAILED,
        3,
        RESULT_TTL,
        {"error": BOOM, "reason": "my own reason"},
        MoveToDead("my own reason", "ValueError: boom"),
    ),
    (Revoked("by hand"), TaskState.REVOKED, 3, RESULT_TTL, {"reason": "by hand"}, Complete()),
    (Revoked(""), TaskState.REVOKED, 3, RESULT_TTL, {}, Complete()),
    (Revoked(None), TaskState.REVOKED, 3, RESULT_TTL, {}, Complete()),
    (Expired(), TaskState.EXPIRED, 3, RESULT_TTL, {}, Complete()),
    (Interrupted(), TaskState.QUEUED, 2, WEEK, {}, Release()),
]

# Every outcome that counts as a failure worth another run: outcome, delay, reason in the status of a retry.
FAILURES = [
    (Failed(BOOM, 9.0), 9.0, None),
    (Failed(BOOM), 0.0, None),
    (TimedOut(BOOM, 9.0), 9.0, None),
    (RetryRequested(BOOM, 9.0, "busy"), 9.0, "busy"),
    (RetryRequested(BOOM, 0.0), 0.0, None),
]


def settle(outcome, delivery):
    return decide(outcome, delivery, now=NOW, worker="worker-1", started_at=4990.0)


@pytest.mark.parametrize("retries", RETRIES)
@pytest.mark.parametrize(("outcome", "state", "rank", "ttl", "fields", "settlement"), ALWAYS)
def test_ends_that_retries_do_not_change(outcome, state, rank, ttl, fields, settlement, retries):
    """Success, an error that rules out another run, revocation, expiry and interruption end alike in each run."""
    delivery = delivery_with(retries)
    assert settle(outcome, delivery) == (status_of(delivery, state, rank, ttl, **fields), settlement)


@pytest.mark.parametrize("retries", RETRIES)
@pytest.mark.parametrize(("outcome", "delay", "reason"), FAILURES)
def test_failures_are_retried_while_retries_are_left(outcome, delay, reason, retries):
    """A failure leads to another run while `max_retries` allows, and to the dead letters when it does not."""
    delivery = delivery_with(retries)
    if retries in LEFT:
        expected = (
            status_of(
                delivery,
                TaskState.RETRYING,
                2,
                WEEK + delay,
                error=BOOM,
                reason=reason,
                next_retry_at=NOW + delay,
            ),
            Retry(delay),
        )
    else:
        expected = (
            status_of(delivery, TaskState.FAILED, 3, RESULT_TTL, error=BOOM, reason=EXHAUSTED),
            MoveToDead(EXHAUSTED, "ValueError: boom"),
        )
    assert settle(outcome, delivery) == expected


@pytest.mark.parametrize("retries", RETRIES)
def test_a_lost_lease_says_nothing(retries):
    """Whoever lost the lease neither records nor settles."""
    assert settle(LeaseLost(), delivery_with(retries)) == (None, None)


def test_every_outcome_is_in_the_table():
    """A new outcome needs a row."""
    tested = {type(row[0]) for row in [*ALWAYS, *FAILURES]} | {LeaseLost}
    assert tested == set(Outcome.__subclasses__())


@pytest.mark.parametrize("thing", [Outcome(), Complete(), None, "succeeded"])
def test_what_is_no_outcome_is_refused(thing):
    """There is no silent way out of the table."""
    with pytest.raises(TypeError, match=r"^not an outcome: "):
        decide(thing, make_delivery(), now=NOW)


@pytest.mark.parametrize(
    "reason",
    [DeadLetterReason.MAX_RETRIES_EXHAUSTED, DeadLetterReason.UNSERIALIZABLE_RESULT],
)
def test_reasons_are_stored_as_plain_text(reason):
    """Reasons in status and settlement are text, not members of an enum."""
    status, settlement = settle(Failed(BOOM, reason=reason), make_delivery())
    assert type(status.reason) is str
    assert type(settlement.reason) is str
    assert status.reason == settlement.reason == reason.value


def test_a_run_that_never_started_has_no_start():
    """Worker and start are left out where there are none."""
    status, _ = decide(Expired(), make_delivery(), now=NOW)
    assert (status.worker, status.started_at) == (None, None)


@pytest.mark.parametrize(
    "outcome", [row[0] for row in [*ALWAYS, *FAILURES]], ids=lambda outcome: type(outcome).__name__
)
def test_deciding_is_pure(outcome):
    """The same input gives the same output, and is left as it was."""
    one, two = delivery_with("last left"), delivery_with("last left")
    first = settle(outcome, one)
    assert settle(outcome, one) == first
    assert settle(outcome, two) == first
    assert one == two


# --- records without an outcome ---------------------------------------------------------------------------------------

LINE = make_envelope(result_ttl=RESULT_TTL, parent_id="id-0", root_id="id-00")
COMMON = {
    "id": "id-1",
    "name": "mail.send",
    "queue": "mail",
    "updated_at": NOW,
    "parent_id": "id-0",
    "root_id": "id-00",
}


def test_live_ttl_is_a_week():
    """Statuses of unfinished tasks are kept for a week."""
    assert LIVE_TTL == WEEK


@pytest.mark.parametrize("told", [{}, {"progress": Progress(percent=5.0, at=4999.0)}])
def test_running(told):
    """A running task's record names worker and start, and may hold progress."""
    delivery = make_delivery(LINE, attempt=1, deliveries=3)
    status = running_status(delivery, now=NOW, worker="w", started_at=4990.0, **told)
    assert status == TaskStatus(
        state=TaskState.RUNNING,
        version=25,
        ttl=WEEK,
        attempt=1,
        deliveries=3,
        worker="w",
        started_at=4990.0,
        **told,
        **COMMON,
    )


@pytest.mark.parametrize("delay", [0.0, 3600.0])
def test_submitted(delay):
    """A task that was just published is queued, and its record outlives its delay."""
    status = submitted_status(LINE, now=NOW, delay=delay)
    assert status == TaskStatus(state=TaskState.QUEUED, version=0, ttl=WEEK + delay, **COMMON)


@pytest.mark.parametrize("delay", [0.0, 3600.0])
def test_replayed(delay):
    """A replayed dead letter is queued again, with attempt 0 and its deliveries."""
    status = replayed_status(LINE, now=NOW, delay=delay, deliveries=3)
    assert status == TaskStatus(state=TaskState.QUEUED, version=28, ttl=WEEK + delay, deliveries=3, **COMMON)


@pytest.mark.parametrize(("deliveries", "version"), [(0, 3), (3, 27)])
def test_purged(deliveries, version):
    """A purged task is revoked for that reason, and kept as long as a result."""
    status = purged_status(LINE, now=NOW, deliveries=deliveries)
    assert status == TaskStatus(
        state=TaskState.REVOKED, version=version, ttl=RESULT_TTL, deliveries=deliveries, reason="purged", **COMMON
    )


@pytest.mark.parametrize("deliveries", [1, 2, 1000])
def test_versions_follow_the_life_of_a_task(deliveries):
    """Whatever comes later in a task's life has the greater version, so that a late record never hides a newer one."""

    def end(outcome: Outcome, deliveries: int) -> int:
        envelope = make_envelope(max_retries=5)
        status, _ = decide(outcome, make_delivery(envelope, deliveries=deliveries), now=NOW)
        return status.version

    def running(deliveries: int) -> int:
        return running_status(make_delivery(deliveries=deliveries), now=NOW, worker="w", started_at=NOW).version

    submitted = submitted_status(LINE, now=NOW, delay=0).version
    given_back = {end(Interrupted(), deliveries), end(Failed(BOOM), deliveries)}
    terminal = {
        end(outcome, deliveries) for outcome in (Succeeded(), Failed(BOOM, reason="x"), Revoked(), Expired())
    } | {purged_status(LINE, now=NOW, deliveries=deliveries).version}
    replayed = replayed_status(LINE, now=NOW, delay=0, deliveries=deliveries).version
    assert len(given_back) == len(terminal) == 1
    order = [submitted, running(deliveries), *given_back, *terminal, replayed, running(deliveries + 1)]
    assert order == sorted(set(order))


def test_errors_are_described_in_dead_letters():
    """The detail of a dead letter is the error's class and text."""
    error = TaskError(type="app.CardError", message="declined: ü")
    _, settlement = settle(Failed(error), make_delivery())
    assert settlement == MoveToDead(EXHAUSTED, "app.CardError: declined: ü")
