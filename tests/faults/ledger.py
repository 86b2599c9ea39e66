"""What was accepted, started, done and finished, written so that a process which dies takes none of it along.

Each entry is one line, appended by one system call to a file that all processes of a test share. `Ledger.problems`
holds it against what the stores say: nothing is lost, nothing counts twice, no two hold a task at a time.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from stem_trio import Broker, ResultBackend, StemSignals, TaskContext

ENDS = {
    "task_succeeded": "succeeded",
    "task_failed": "failed",
    "task_revoked": "revoked",
    "task_expired": "expired",
    "task_retry": "retry",
    "task_released": "released",
    "task_lease_lost": "lease lost",
}
"""Signals that tell how a delivery ended once the broker has confirmed it, and what stands for them in the ledger."""

FINAL = ("succeeded", "failed", "revoked", "expired")


class Ledger:
    """One file of entries; every process opens it by its path.

    Args:
        path: the file; made when it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, what: str, **facts: Any) -> None:
        """Append one entry. What the system has taken survives the process."""
        line = json.dumps({"what": what, "at": time.monotonic(), "pid": os.getpid(), **facts})
        os.write(self._file, line.encode() + b"\n")

    def accepted(self, ids: Iterable[str]) -> None:
        """These ids were returned to a producer."""
        for task_id in ids:
            self.write("accepted", id=task_id)

    @contextmanager
    def run(self, context: TaskContext):
        """A run of a handler, from its start to its end."""
        facts = {"id": context.id, "attempt": context.attempt, "token": context.deliveries, "worker": context.worker}
        self.write("started", **facts)
        end = "cut off"
        try:
            yield facts
            end = "returned"
        except trio.Cancelled:
            end = "cancelled"
            raise
        except BaseException:
            end = "raised"
            raise
        finally:
            self.write("ended", end=end, **facts)

    def effect(self, facts: dict[str, Any]) -> None:
        """The handler has done what it is there for."""
        self.write("effect", **facts)

    def listen(self, signals: StemSignals) -> None:
        """Write down how deliveries end, as the worker tells it."""
        for name, end in ENDS.items():
            getattr(signals, name).connect(lambda event, end=end: self._finished(event, end))

    def _finished(self, event: Any, end: str) -> None:
        self.write(
            "finished", id=event.task_id, attempt=event.attempt, token=event.deliveries, worker=event.worker, end=end
        )

    # --- reading --------------------------------------------------------------------------------------------------

    def entries(self, what: str | None = None, **facts: Any) -> list[dict[str, Any]]:
        """The entries so far, of one kind and with these facts if asked for."""
        text = self.path.read_bytes()
        # The last line may be under way.
        found = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
        return [
            entry
            for entry in found
            if (what is None or entry["what"] == what) and all(entry.get(key) == value for key, value in facts.items())
        ]

    def ids(self, what: str, **facts: Any) -> list[str]:
        """The ids of entries."""
        return [entry["id"] for entry in self.entries(what, **facts)]

    async def wait_for(self, what: str, *, count: int = 1, within: float = 20.0, **facts: Any) -> list[dict[str, Any]]:
        """Wait until there are so many entries of a kind."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            nonlocal found
            found = self.entries(what, **facts)
            return len(found) >= count

        await eventually(enough, f"{count} entries {what!r} with {facts}", within=within)
        return found

    # --- checking -------------------------------------------------------------------------------------------------

    async def assert_visible(self, broker: Broker, backend: ResultBackend, queue: str = "default") -> None:
        """G1 at this moment, in which no worker may be at work: what was accepted is over, or in one of the places."""
        # Counted first: what is leased may come back between the two questions, and nothing else can happen.
        leased = (await broker.stats(queue)).leased
        waiting = [task.envelope.id for task in await broker.peek(queue, limit=10_000)]
        dead = [letter.envelope.id for letter in await broker.list_dead_letters(queue, limit=10_000)]
        twice = [task_id for task_id, count in Counter(waiting + dead).items() if count > 1]
        missing = []
        for task_id in set(self.ids("accepted")) - set(waiting) - set(dead):
            status = await backend.get(task_id)
            if status is None or not status.state.terminal:
                missing.append(task_id)
        assert not twice, f"in two places: {twice}"
        assert len(missing) <= leased, f"{missing} are in no place, beside {leased} that are leased"

    async def assert_drained(
        self, broker: Broker, backend: ResultBackend, queue: str = "default", *, frozen: bool = False
    ) -> None:
        """After everything has run: nothing is lost, one finish and one effect of it for each, no overlaps.

        Args:
            broker: where the tasks were.
            backend: where their statuses are.
            queue: their queue.
            frozen: whether a process was stopped, so that its handler may still be at work when the next one is.
        """
        problems = self.problems(frozen=frozen)
        states = {}
        for task_id in dict.fromkeys(self.ids("accepted")):
            status = await backend.get(task_id)
            states[task_id] = "unknown" if status is None else status.state.value
        problems += [f"{task_id} is {state}" for task_id, state in states.items() if state not in FINAL]
        stats = await broker.stats(queue)
        if stats.unfinished:
            problems.append(f"tasks are left: {stats}")
        dead = [letter.envelope.id for letter in await broker.list_dead_letters(queue, limit=10_000)]
        failed = [task_id for task_id, state in states.items() if state == "failed"]
        if sorted(dead) != sorted(failed):
            problems.append(f"dead letters {dead} are not the failed tasks {failed}")
        for entry in self.entries("finished"):
            if entry["end"] in FINAL and states.get(entry["id"], entry["end"]) != entry["end"]:
                problems.append(f"{entry['id']} finished as {entry['end']}, but is {states[entry['id']]}")
        assert not problems, "\n".join(problems)

    def problems(self, *, frozen: bool = False) -> list[str]:
        """What the entries say that must not be, whatever the stores hold."""
        found = []
        finishes: dict[str, list[int]] = defaultdict(list)
        for entry in self.entries("finished"):
            if entry["end"] in FINAL:
                finishes[entry["id"]].append(entry["token"])
        effects = Counter((entry["id"], entry["token"]) for entry in self.entries("effect"))
        for task_id, tokens in finishes.items():
            if len(tokens) > 1:
                found.append(f"{task_id} was finished {len(tokens)} times, by deliveries {tokens}")
        for entry in self.entries("finished", end="succeeded"):
            count = effects[entry["id"], entry["token"]]
            if count != 1:
                found.append(f"{entry['id']}: {count} effects of the winner")
        started = self.entries("started")
        for key, count in Counter((entry["id"], entry["token"]) for entry in started).items():
            if count > 1:
                found.append(f"{key[0]}: delivery {key[1]} was started {count} times")
        failures = Counter(self.ids("ended", end="raised"))
        found += [
            f"{entry['id']}: attempt {entry['attempt']} after {failures[entry['id']]} failures"
            for entry in started
            if entry["attempt"] > failures[entry["id"]]
        ]
        return found if frozen else found + self._overlaps()

    def _overlaps(self) -> list[str]:
        """Runs of one task that were under way at the same time. A run without an end died with its process."""
        ends = {(entry["id"], entry["token"]): entry["at"] for entry in self.entries("ended")}
        runs: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for entry in self.entries("started"):
            runs[entry["id"]].append((entry["at"], entry["token"]))
        found = []
        for task_id, starts in runs.items():
            starts.sort()
            for (_, token), (next_start, next_token) in pairwise(starts):
                if ends.get((task_id, token), next_start) > next_start:
                    found.append(f"{task_id}: delivery {next_token} began while {token} was at work")
        return found


async def eventually(condition: Callable[[], Any], what: str, *, within: float = 20.0) -> Any:
    """Wait until a sync or async condition holds, and return what it gave.

    Raises:
        AssertionError: it does not come to hold within so many seconds.
    """
    with trio.move_on_after(within):
        while True:
            value = condition()
            if hasattr(value, "__await__"):
                value = await value
            if value:
                return value
            await trio.sleep(0.03)
    raise AssertionError(f"not within {within:g} s: {what}")
