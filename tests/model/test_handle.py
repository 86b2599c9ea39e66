"""What a producer holds of an enqueued task."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from stem_trio.errors import TaskExpiredError, TaskFailedError, TaskRevokedError, UnknownTaskError
from stem_trio.handle import TaskHandle
from stem_trio.status import TaskResult, TaskState, TaskStatus
from stem_trio.task import task

from .support import BOOM


@task(name="t")
def sample() -> int:
    return 5


@attrs.define
class Source:
    """Knows one task, and writes down what it is asked for."""

    end: TaskState = TaskState.SUCCEEDED
    known: bool = True
    calls: list[Any] = attrs.field(factory=list)

    async def status(self, task_id: str) -> TaskStatus | None:
        self.calls.append(("status", task_id))
        return STATUS if self.known else None

    async def wait_for_task(self, task: TaskHandle[Any], timeout: float | None = None) -> TaskResult[Any]:
        self.calls.append(("wait", task, timeout))
        value = 5 if self.end is TaskState.SUCCEEDED else None
        error = BOOM if self.end is TaskState.FAILED else None
        return TaskResult(task_id=task.id, state=self.end, value=value, error=error, attempt=0, reason="why")

    async def revoke(self, task: str, *, reason: str | None = None) -> bool:
        self.calls.append(("revoke", task, reason))
        return self.known


STATUS = TaskStatus(id="id-1", name="t", queue="q", state=TaskState.RUNNING, version=9, updated_at=0.0, ttl=1.0)


def make(source: Source, *, created: bool = True) -> TaskHandle[int]:
    return TaskHandle(source, "id-1", sample.definition, created=created)


@pytest.mark.parametrize("created", [True, False])
def test_a_handle_names_its_task(created):
    """A handle knows id and name, whether the task is new, and prints both."""
    handle = make(Source(), created=created)
    assert (handle.id, handle.name, handle.created) == ("id-1", "t", created)
    assert handle.definition is sample.definition
    assert str(handle) == "id-1"
    assert repr(handle) == "<TaskHandle t id-1>"


async def test_status():
    """The status is read by the task's id."""
    source = Source()
    assert await make(source).status() is STATUS
    assert source.calls == [("status", "id-1")]


async def test_status_of_an_unknown_task():
    """A task that the backend has forgotten is an error here: the handle is proof that there was one."""
    with pytest.raises(UnknownTaskError) as caught:
        await make(Source(known=False)).status()
    assert caught.value.task_id == "id-1"


async def test_waiting():
    """Waiting passes the handle itself on, so that the value is decoded by its task, and the timeout."""
    source = Source()
    handle = make(source)
    assert (await handle.wait()).state is TaskState.SUCCEEDED
    assert (await handle.wait(7)).value == 5
    assert source.calls == [("wait", handle, None), ("wait", handle, 7)]


async def test_the_result_is_the_value():
    """Of a succeeded task the result is what its handler returned."""
    source = Source()
    handle = make(source)
    assert await handle.result() == 5
    assert await handle.result(timeout=3) == 5
    assert source.calls == [("wait", handle, None), ("wait", handle, 3)]


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (TaskState.FAILED, TaskFailedError),
        (TaskState.REVOKED, TaskRevokedError),
        (TaskState.EXPIRED, TaskExpiredError),
    ],
)
async def test_the_result_of_other_ends_is_an_error(end, error):
    """A task that ended otherwise raises how."""
    with pytest.raises(error):
        await make(Source(end)).result()


@pytest.mark.parametrize("known", [True, False])
async def test_revoking(known):
    """Revoking passes id and reason on, and gives the answer back."""
    source = Source(known=known)
    handle = make(source)
    assert await handle.revoke() is known
    assert await handle.revoke(reason="by hand") is known
    assert source.calls == [("revoke", "id-1", None), ("revoke", "id-1", "by hand")]
