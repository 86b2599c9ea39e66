"""An app for tests: in memory, on a clock that follows trio's, and with a record of what was enqueued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import msgspec

from ..app import StemApp
from ..clock import TrioClock
from ..signals import StemSignals

if TYPE_CHECKING:
    from typing import Self

    from ..events import PublishEvent
    from ..task import AnyTask

__all__ = ["EnqueuedTask", "RecordingStemApp"]


@final
class EnqueuedTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task that was enqueued.

    Attributes:
        id: its id.
        name: its name.
        args: its arguments, as JSON gives them.
        queue: its queue.
        priority: its priority.
        delay: seconds that it had to wait.
        headers: its headers.
        meta: its meta.
        parent_id: id of the task whose handler enqueued it, or None.
    """

    id: str
    name: str
    args: dict[str, Any]
    queue: str
    priority: int
    delay: float
    headers: dict[str, str]
    meta: dict[str, Any]
    parent_id: str | None


@final
class RecordingStemApp(StemApp):
    """A `StemApp` that remembers what was enqueued on it, by tests and by handlers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._enqueued: list[EnqueuedTask] = []
        self.stem.signals.after_task_publish.connect(self._remember, priority=1_000_000)

    @classmethod
    def for_test(cls, **options: Any) -> Self:
        """One in memory, with signals of its own and a wall clock that follows trio's.

        Args:
            options: those of `StemApp`, for something else than that.
        """
        options.setdefault("clock", TrioClock())
        options.setdefault("signals", StemSignals())
        return cls.in_memory(**options)

    def _remember(self, event: PublishEvent) -> None:
        envelope = event.envelope
        self._enqueued.append(
            EnqueuedTask(
                id=envelope.id,
                name=envelope.name,
                args=msgspec.json.decode(envelope.args),
                queue=envelope.queue,
                priority=envelope.priority,
                delay=event.delay,
                headers=envelope.headers,
                meta=msgspec.json.decode(envelope.meta),
                parent_id=envelope.parent_id,
            )
        )

    def enqueued(self, task: AnyTask | str | None = None, **args: Any) -> list[EnqueuedTask]:
        """What was enqueued so far, oldest first; of one task only, and with these arguments among others.

        Args:
            task: the task, or its name; None for any.
            args: arguments to look for, compared as JSON gives them: write dates and the like as text.
        """
        name = task if task is None or isinstance(task, str) else task.name
        return [
            entry
            for entry in self._enqueued
            if (name is None or entry.name == name)
            and all(key in entry.args and entry.args[key] == value for key, value in args.items())
        ]
