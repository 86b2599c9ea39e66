"""What a producer holds of a task that it has enqueued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, final

from .errors import UnknownTaskError

if TYPE_CHECKING:
    from datetime import timedelta

    from .status import TaskResult, TaskStatus
    from .task import TaskDefinition

__all__ = ["ResultSource", "TaskHandle"]

R = TypeVar("R")


class ResultSource(Protocol):
    """Where a handle finds what became of its task."""

    async def status(self, task: str) -> TaskStatus | None:
        """The status of a task."""
        ...

    async def wait_for_task(self, task: TaskHandle[R], timeout: float | timedelta | None = None) -> TaskResult[R]:
        """Wait for the end of a task."""
        ...

    async def revoke(self, task: str, *, reason: str | None = None) -> bool:
        """Revoke a task."""
        ...


@final
class TaskHandle(Generic[R]):
    """An enqueued task.

    Attributes:
        id: its id.
        name: name of the task.
        created: False when the id was given by the caller and known already: nothing was enqueued, and the handle
            stands for the task that was there.
    """

    __slots__ = ("_source", "created", "definition", "id", "name")

    def __init__(self, source: ResultSource, task_id: str, definition: TaskDefinition, *, created: bool) -> None:
        self._source = source
        self.id = task_id
        self.name = definition.name
        self.created = created
        self.definition = definition

    def __repr__(self) -> str:
        return f"<TaskHandle {self.name} {self.id}>"

    def __str__(self) -> str:
        return self.id

    async def status(self) -> TaskStatus:
        """What is known of the task now.

        Raises:
            UnknownTaskError: its retention has ended.
        """
        status = await self._source.status(self.id)
        if status is None:
            raise UnknownTaskError(self.id)
        return status

    async def wait(self, timeout: float | timedelta | None = None) -> TaskResult[R]:
        """Wait until the task is over, however it ends. As `Stem.wait_for_task`."""
        return await self._source.wait_for_task(self, timeout)

    async def result(self, timeout: float | timedelta | None = None) -> R:
        """Wait until the task is over, and return what its handler returned.

        Args:
            timeout: seconds (or timedelta); None waits for ever.

        Cancellation: nothing happens to the task.

        Raises:
            TaskFailedError: it failed.
            TaskRevokedError: it was revoked.
            TaskExpiredError: it was not started in time.
            WaitTimeoutError: it is not over within the timeout.
            UnknownTaskError: nothing is known of it.
            ResultDecodeError: its result is not of the annotated type.
        """
        return (await self.wait(timeout)).unwrap()

    async def revoke(self, *, reason: str | None = None) -> bool:
        """Never start the task, and cancel it if it runs. As `Stem.revoke`."""
        return await self._source.revoke(self.id, reason=reason)
