"""What the result backend keeps."""

from __future__ import annotations

import attrs
import msgspec
import pytest

from stem_trio.errors import TaskExpiredError, TaskFailedError, TaskRevokedError
from stem_trio.status import Progress, Rank, TaskError, TaskResult, TaskState, TaskStatus, WorkerHeartbeat

from .support import BOOM

SHORT = TaskStatus(id="id-1", name="n", queue="q", state=TaskState.QUEUED, version=0, updated_at=1.0, ttl=2.0)
FULL = TaskStatus(
    id="id-1",
    name="mail.send",
    queue="mail",
    state=TaskState.SUCCEEDED,
    version=11,
    updated_at=1000.25,
    ttl=60.0,
    attempt=2,
    deliveries=1,
    worker="worker-1",
    started_at=999.5,
    value=msgspec.Raw(b'{ "a" : 1 }'),
    error=TaskError(type="ValueError", message="boom", traceback="Traceback ...", retryable=False),
    reason="why",
    next_retry_at=1001.0,
    progress=Progress(percent=50.0, at=999.75, data=msgspec.Raw(b"[1,2]")),
    parent_id="id-0",
    root_id="id-00",
)


@pytest.mark.parametrize(
    ("state", "value", "terminal"),
    [
        (TaskState.QUEUED, "queued", False),
        (TaskState.RUNNING, "running", False),
        (TaskState.RETRYING, "retrying", False),
        (TaskState.SUCCEEDED, "succeeded", True),
        (TaskState.FAILED, "failed", True),
        (TaskState.REVOKED, "revoked", True),
        (TaskState.EXPIRED, "expired", True),
    ],
)
def test_states(state, value, terminal):
    """Each state has its stored name, and is terminal or not."""
    assert state.value == value
    assert state.terminal is terminal


def test_there_are_no_other_states():
    """The seven states are all there are; a new one needs a line in the table above."""
    assert len(TaskState) == 7


def test_ranks_ascend_within_a_delivery():
    """A record of one delivery may replace those of lower rank, and all ranks fit below the next delivery's."""
    ranks = [Rank.ENQUEUED, Rank.RUNNING, Rank.GIVEN_BACK, Rank.TERMINAL, Rank.REPLAYED, Rank.SPAN]
    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize("status", [SHORT, FULL], ids=["short", "full"])
def test_status_round_trip(status):
    """What a store keeps of a status is all of it."""
    assert TaskStatus.decode(status.encode()) == status


def test_status_leaves_out_defaults():
    """A status that says little is short: thousands are written in a second."""
    assert SHORT.encode() == (
        b'{"id":"id-1","name":"n","queue":"q","state":"queued","version":0,"updated_at":1.0,"ttl":2.0}'
    )


@pytest.mark.parametrize(
    ("short", "raw", "full"),
    [
        (
            TaskError(type="E", message="m"),
            b'{"type":"E","message":"m"}',
            TaskError(type="E", message="m", traceback="", retryable=True),
        ),
        (Progress(percent=5.0, at=1.0), b'{"percent":5.0,"at":1.0}', Progress(percent=5.0, at=1.0, data=None)),
        (
            SHORT,
            SHORT.encode(),
            msgspec.structs.replace(
                SHORT,
                attempt=0,
                deliveries=0,
                worker=None,
                started_at=None,
                value=None,
                error=None,
                reason=None,
                next_retry_at=None,
                progress=None,
                parent_id=None,
                root_id=None,
            ),
        ),
    ],
    ids=["error", "progress", "status"],
)
def test_what_is_left_out_has_its_default(short, raw, full):
    """A field that is not stored comes back as documented."""
    assert msgspec.json.encode(short) == raw
    assert short == full
    assert msgspec.json.decode(raw, type=type(short)) == full


def test_results_need_no_reason():
    """A result says why only where there is a why."""
    assert result(TaskState.SUCCEEDED).reason is None
    with pytest.raises(TypeError, match="positional"):
        TaskResult("id-1", TaskState.SUCCEEDED, None, None, 0)


def test_values_are_kept_byte_for_byte():
    """Results and progress data are not read on their way through a store."""
    decoded = TaskStatus.decode(FULL.encode())
    assert bytes(decoded.value) == b'{ "a" : 1 }'
    assert bytes(decoded.progress.data) == b"[1,2]"


def test_a_null_value_is_told_apart_from_none():
    """A handler that returned None has a value; one whose result is ignored has not."""
    status = msgspec.structs.replace(SHORT, state=TaskState.SUCCEEDED, value=msgspec.Raw(b"null"))
    assert TaskStatus.decode(status.encode()) == status
    assert TaskStatus.decode(SHORT.encode()).value is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"{}",
        b"[]",
        SHORT.encode()[:-1],
        SHORT.encode().replace(b'"queued"', b'"lost"'),
        SHORT.encode().replace(b'"id-1"', b"1"),
        SHORT.encode().replace(b"id-1", b"\xff"),
        SHORT.encode().replace(b'"id-1"', b"[" * 100_000 + b"]" * 100_000),
        SHORT.encode()[:-1] + b',"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_status_is_refused(data):
    """Broken data is refused with the one error that callers expect, however it is broken."""
    with pytest.raises(msgspec.DecodeError):
        TaskStatus.decode(data)


@pytest.mark.parametrize(
    ("raw", "value"), [(None, None), (b"null", None), (b'{"done":3}', {"done": 3}), (b"0", 0), (b'""', "")]
)
def test_progress_data(raw, value):
    """Progress data decodes to what the handler gave."""
    progress = Progress(percent=1.0, at=0.0, data=None if raw is None else msgspec.Raw(raw))
    assert progress.decode() == value


def result(state, **fields):
    """The end of a task in this state."""
    return TaskResult(**({"task_id": "id-1", "state": state, "value": None, "error": None, "attempt": 0} | fields))


@pytest.mark.parametrize("value", [None, 0, "", [1], {"a": 1}])
def test_unwrap_gives_the_value(value):
    """A succeeded task gives its value, whatever its truth."""
    assert result(TaskState.SUCCEEDED, value=value).unwrap() == value


@pytest.mark.parametrize("error", [BOOM, None])
def test_unwrap_of_a_failed_task(error):
    """A failed task raises what it failed with."""
    with pytest.raises(TaskFailedError) as caught:
        result(TaskState.FAILED, error=error).unwrap()
    assert (caught.value.task_id, caught.value.error) == ("id-1", error)


@pytest.mark.parametrize("reason", ["by hand", None])
def test_unwrap_of_a_revoked_task(reason):
    """A revoked task raises why it was revoked."""
    with pytest.raises(TaskRevokedError) as caught:
        result(TaskState.REVOKED, reason=reason).unwrap()
    assert (caught.value.task_id, caught.value.reason) == ("id-1", reason)


def test_unwrap_of_an_expired_task():
    """An expired task raises that it expired."""
    with pytest.raises(TaskExpiredError) as caught:
        result(TaskState.EXPIRED).unwrap()
    assert caught.value.task_id == "id-1"


@pytest.mark.parametrize("kind", [TaskError, Progress, TaskStatus, WorkerHeartbeat])
def test_records_are_immutable_and_made_by_name(kind):
    """Records can be shared, for nobody changes them; and no two of their fields are mistaken for each other."""
    assert kind.__struct_config__.frozen
    with pytest.raises(TypeError, match="positional"):
        kind("a")


def test_results_are_immutable():
    """The same holds for what waiting returns."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result(TaskState.SUCCEEDED).value = 1


def test_heartbeats_can_be_stored():
    """A heartbeat is carried by JSON as it is."""
    heartbeat = WorkerHeartbeat(
        worker="w-1",
        host="h",
        pid=1,
        state="running",
        queues=("a", "b"),
        concurrency=4,
        in_flight=3,
        running=2,
        totals={"succeeded": 10},
        started_at=1.0,
        sent_at=2.0,
    )
    assert msgspec.json.decode(msgspec.json.encode(heartbeat), type=WorkerHeartbeat) == heartbeat
