"""The exception tree, and what its messages name."""

from __future__ import annotations

import pytest

from stem_trio import errors
from stem_trio.errors import (
    ArgumentsError,
    ConfigurationError,
    DuplicateTaskError,
    EnqueueError,
    HardTimeLimitError,
    InvalidOptionError,
    InvalidScheduleError,
    LeaseLostError,
    PayloadTooLargeError,
    RegistrationError,
    ResultDecodeError,
    ResultError,
    SerializationError,
    SoftTimeLimitError,
    StemError,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskFailedError,
    TaskRetryRequest,
    TaskRevokedError,
    UnknownTaskError,
    UnregisteredTaskError,
    WaitTimeoutError,
    WorkerError,
    WorkerStateError,
    type_name,
)
from stem_trio.status import TaskError, TaskState, TaskStatus

STATUS = TaskStatus(id="id-1", name="n", queue="q", state=TaskState.RUNNING, version=9, updated_at=0.0, ttl=1.0)


def test_every_error_is_exported_and_in_the_tree():
    """Nothing is raised on purpose that `except StemError` would miss."""
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert set(errors.__all__) == defined
    assert all(issubclass(getattr(errors, name), StemError) for name in errors.__all__)


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (InvalidOptionError, (ConfigurationError, ValueError)),
        (RegistrationError, (ConfigurationError,)),
        (DuplicateTaskError, (RegistrationError,)),
        (UnregisteredTaskError, (EnqueueError, LookupError)),
        (ArgumentsError, (EnqueueError, TypeError)),
        (SerializationError, (EnqueueError, TypeError)),
        (PayloadTooLargeError, (EnqueueError, ValueError)),
        (InvalidScheduleError, (EnqueueError, ValueError)),
        (StoreUnavailableError, (StoreError,)),
        (StoreTimeoutError, (StoreUnavailableError,)),
        (StoreClosedError, (StoreError,)),
        (UnknownTaskError, (ResultError, LookupError)),
        (WaitTimeoutError, (ResultError, TimeoutError)),
        (TaskFailedError, (ResultError,)),
        (TaskRevokedError, (ResultError,)),
        (TaskExpiredError, (ResultError,)),
        (ResultDecodeError, (ResultError, TypeError)),
        (SoftTimeLimitError, (StemError, TimeoutError)),
        (HardTimeLimitError, (StemError, TimeoutError)),
        (WorkerStateError, (WorkerError, RuntimeError)),
    ],
)
def test_bases(error, bases):
    """Errors are caught by what they are to the program and by what they are to Python."""
    assert all(issubclass(error, base) for base in bases)


@pytest.mark.parametrize("error", [TaskRetryRequest, LeaseLostError, SoftTimeLimitError])
def test_what_ends_a_run_is_not_about_input_or_stores(error):
    """A handler that catches the errors of its own calls does not catch the end of its run with them."""
    assert not issubclass(error, EnqueueError | StoreError | ResultError | ConfigurationError)


@pytest.mark.parametrize(
    ("error", "message", "attributes"),
    [
        (
            InvalidOptionError("priority", 12, "must be at most 9"),
            "priority=12: must be at most 9",
            {"option": "priority", "value": 12},
        ),
        (
            DuplicateTaskError("a.b"),
            "a task named 'a.b' is already registered; give one of them another name",
            {"name": "a.b"},
        ),
        (
            UnregisteredTaskError("x", ["b", "a"]),
            "no task named 'x' is registered (known: a, b); pass it in tasks=",
            {"name": "x", "known": ("a", "b")},
        ),
        (
            UnregisteredTaskError("x", iter(())),
            "no task named 'x' is registered (known: none); pass it in tasks=",
            {"known": ()},
        ),
        (
            ArgumentsError("t", "to", "is missing"),
            "task 't': argument 'to': is missing",
            {"task": "t", "argument": "to"},
        ),
        (
            ArgumentsError("t", None, "must be a mapping"),
            "task 't': arguments: must be a mapping",
            {"task": "t", "argument": None},
        ),
        (SerializationError("meta", "is a file"), "meta: is a file", {"field": "meta"}),
        (
            PayloadTooLargeError("t", 300, 200),
            (
                "task 't': the encoded task has 300 bytes, over the limit of 200; "
                "store the data elsewhere and pass a reference, or raise max_payload_size"
            ),
            {"size": 300, "limit": 200},
        ),
        (InvalidScheduleError("eta", "is naive"), "eta: is naive", {"option": "eta"}),
        (StoreUnavailableError("gone"), "gone", {"maybe_applied": False}),
        (StoreUnavailableError("gone", maybe_applied=True), "gone", {"maybe_applied": True}),
        (
            StoreTimeoutError("publish", 2.5),
            "publish: the store did not answer within 2.5 s",
            {"operation": "publish", "seconds": 2.5, "maybe_applied": True},
        ),
        (
            UnknownTaskError("id-1"),
            "no task 'id-1' is known: never enqueued, or its retention has ended",
            {"task_id": "id-1"},
        ),
        (
            WaitTimeoutError("id-1", 5.0, STATUS),
            "task 'id-1' is not finished after 5 s (last seen: running)",
            {"task_id": "id-1", "status": STATUS},
        ),
        (
            WaitTimeoutError("id-1", 0.5, None),
            "task 'id-1' is not finished after 0.5 s (last seen: no status)",
            {"status": None},
        ),
        (
            TaskFailedError("id-1", TaskError(type="ValueError", message="boom")),
            "task 'id-1' failed: ValueError: boom",
            {"task_id": "id-1", "error": TaskError(type="ValueError", message="boom")},
        ),
        (TaskFailedError("id-1", None), "task 'id-1' failed: no error recorded", {"error": None}),
        (TaskRevokedError("id-1", "by hand"), "task 'id-1' was revoked: by hand", {"reason": "by hand"}),
        (TaskRevokedError("id-1", None), "task 'id-1' was revoked", {"reason": None}),
        (TaskExpiredError("id-1"), "task 'id-1' expired before it was started", {"task_id": "id-1"}),
        (
            ResultDecodeError("id-1", "Expected `int`"),
            "the result of task 'id-1' cannot be decoded: Expected `int`",
            {"task_id": "id-1"},
        ),
        (TaskRetryRequest(), "retry requested", {"after": None, "reason": None}),
        (TaskRetryRequest(3.0, "busy"), "busy", {"after": 3.0, "reason": "busy"}),
    ],
)
def test_messages_and_attributes(error, message, attributes):
    """A message names what is wrong, and a program can read the same from attributes."""
    assert str(error) == message
    assert {name: getattr(error, name) for name in attributes} == attributes


class Outer:
    class InnerError(Exception):
        pass


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ValueError, "ValueError"),
        (Outer.InnerError, f"{__name__}.Outer.InnerError"),
        (LeaseLostError, "stem_trio.errors.LeaseLostError"),
    ],
)
def test_type_name(kind, name):
    """Built-in classes go by their name, others by module and qualified name."""
    assert type_name(kind) == name
