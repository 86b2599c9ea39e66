"""What was enqueued, how it was to end, and how it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from .. import TaskError, TaskState

if TYPE_CHECKING:
    from .. import StemClient, TaskHandle

__all__ = ["Ledger"]


@final
class Ledger:
    """Keeps account of tasks: none may be lost, and each is to end as it should.

    Attributes:
        surprises: what is not as it should be, beside what is lost.
    """

    def __init__(self) -> None:
        self._due: dict[str, tuple[str, TaskState]] = {}
        self._ended: dict[str, TaskState] = {}
        self.surprises: list[str] = []

    def add(self, name: str, task_id: str, state: TaskState = TaskState.SUCCEEDED) -> None:
        """A task is enqueued, and is to end in this state."""
        self._due[task_id] = (name, state)

    def enqueued(self, handle: TaskHandle[Any], state: TaskState = TaskState.SUCCEEDED) -> None:
        """As `add`, for a task of which there is a handle."""
        self.add(handle.name, handle.id, state)

    def check(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
        """Something that is to be so; say what is the matter if it is not."""
        if not holds:
            self.surprises.append(otherwise)

    @property
    def ids(self) -> list[str]:
        """Of all tasks."""
        return list(self._due)

    @property
    def lost(self) -> int:
        """Tasks that have not come to an end."""
        return len(self._due) - len(self._ended)

    @property
    def is_good(self) -> bool:
        """Whether everything was as it should be."""
        return not self.lost and not self.surprises

    async def close(self, client: StemClient) -> None:
        """See how each task has ended, and print it.

        Raises:
            StoreUnavailableError: the file cannot be used.
        """
        print("\nHow each of them ended:")
        for task_id, (name, due) in self._due.items():
            status = await client.status(task_id)
            if status is None or not status.state.terminal:
                print(f"  {name:<14} lost: {'nothing is known of it' if status is None else status.state.value}")
                continue
            self._ended[task_id] = status.state
            self.check(status.state is due, f"{name} was to be {due.value}, and is {status.state.value}")
            value = None if status.value is None else bytes(status.value).decode()
            print(f"  {name:<14} {status.state.value:<10} {_end(value, status.error, status.reason)}".rstrip())
        dead = [letter.envelope for letter in await client.broker.list_dead_letters("default")]
        mine = ", ".join(envelope.name for envelope in dead if envelope.id in self._due)
        self.check(bool(mine), "no dead letter was kept")
        print(f"\nDead letters, kept to be replayed: {mine}")

    def show(self) -> None:
        """Print the account."""
        due = [state for _, state in self._due.values()]
        succeeded = sum(state is TaskState.SUCCEEDED for state in self._ended.values())
        intended = sum(self._due[task][1] is state is not TaskState.SUCCEEDED for task, state in self._ended.items())
        others = len(self._ended) - succeeded - intended
        print("\nLedger")
        print(f"  enqueued            {len(due):>3}")
        print(f"  succeeded           {succeeded:>3}")
        print(f"  failed as intended  {intended:>3}  (failed, revoked or expired)")
        if others:
            print(f"  failed otherwise    {others:>3}")
        print(f"  lost                {self.lost:>3}")
        for surprise in self.surprises:
            print(f"Not as it should be: {surprise}")


def _end(value: str | None, error: TaskError | None, reason: str | None) -> str:
    if value is not None:
        return f"returned {value}"
    if error is not None:
        return f"{error.type.rpartition('.')[2]}: {error.message}"
    return reason or ""
