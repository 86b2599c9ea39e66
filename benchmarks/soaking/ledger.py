"""What happened to each task, written so that a process that is killed takes none of it along.

A worker appends lines to a file of its own, one system call for each. The harness reads what has been added now and
then, and keeps the books.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, final

__all__ = ["EFFECT", "FAILED", "LOST_LEASE", "RELEASED", "STARTED", "SUCCEEDED", "Books", "Writer"]

STARTED: Final = "started"
EFFECT: Final = "effect"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
RELEASED: Final = "released"
LOST_LEASE: Final = "lost-lease"


@final
class Writer:
    """The file of one worker process.

    Args:
        path: where; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, task_id: str, delivery: int) -> None:
        """Append a line; once this returns, it survives the process."""
        line = f"{what} {task_id} {delivery} {os.getpid()} {time.monotonic():.3f}\n"
        os.write(self._file, line.encode())


@final
class Books:
    """What all files say, and what producers were told.

    Args:
        folder: of the files.

    Attributes:
        totals: lines by their kind.
        accepted: ids that were returned to a producer.
        effects: how often the work of each id was done.
        finishes: by whom each id was finished, as the broker confirmed it: delivery, process, and when.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.totals: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.effects: Counter[str] = Counter()
        self.finishes: dict[str, list[str]] = {}
        self._untold: set[str] = set()
        self._confirmed: set[str] = set()

    def accept(self, task_ids: Iterable[str]) -> None:
        """These were returned to a producer."""
        self.accepted.update(task_ids)

    def update(self) -> None:
        """Read what has been added."""
        for path in self._folder.glob("*.ledger"):
            offset = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(offset)
                added = file.read()
            complete = added[: added.rfind(b"\n") + 1]  # the last line may be under way
            self._read[path] = offset + len(complete)
            for line in complete.decode().splitlines():
                self._enter(*line.split(" ", 2))

    def _enter(self, what: str, task_id: str, by: str) -> None:
        self.totals[what] += 1
        if what == EFFECT:
            self.effects[task_id] += 1
            if task_id not in self.finishes and task_id not in self._confirmed:
                self._untold.add(task_id)
        elif what in {SUCCEEDED, FAILED}:
            self.finishes.setdefault(task_id, []).append(f"{what} {by}")
            self._untold.discard(task_id)

    @property
    def untold(self) -> set[str]:
        """Ids whose work was done while nobody told that they are finished: their worker may have died in between."""
        return set(self._untold)

    def confirm(self, task_id: str) -> None:
        """The store says that it is finished."""
        self._confirmed.add(task_id)
        self._untold.discard(task_id)

    @property
    def missing(self) -> set[str]:
        """Accepted ids that have come to no end: none was told, and the store has confirmed none."""
        return {task_id for task_id in self.accepted if task_id in self._untold or not self._over(task_id)}

    def _over(self, task_id: str) -> bool:
        return task_id in self.finishes or task_id in self.effects

    @property
    def finished_twice(self) -> dict[str, list[str]]:
        """Ids that were finished more than once, which must not be, and by whom."""
        return {task_id: by for task_id, by in self.finishes.items() if len(by) > 1}

    @property
    def repeated_effects(self) -> int:
        """How often work was done once more than needed, which may be: its worker was struck down before the end."""
        return sum(count - 1 for count in self.effects.values())
