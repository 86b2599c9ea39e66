"""What a broker and a result backend should do, in the plainest terms: dictionaries, lists, no concern for speed."""

from __future__ import annotations

from typing import Literal

import attrs

from stem_trio.envelope import Delivery, Envelope, Lease
from stem_trio.outcome import Complete, MoveToDead, Release, Retry, Settlement
from stem_trio.status import TaskStatus

Place = Literal["ready", "delayed", "leased", "dead"]


@attrs.define(eq=False)
class Task:
    """One task that is held. `until` is when its place ends by itself: due time, end of lease, end of retention."""

    envelope: Envelope
    place: Place = "ready"
    until: float = 0.0
    turn: int = 0
    came_back: bool = False
    attempt: int = 0
    deliveries: int = 0
    strikes: int = 0
    revoked: str | None = None
    token: int | None = None
    reason: str = ""
    detail: str = ""

    @property
    def id(self) -> str:
        return self.envelope.id

    @property
    def numbers(self) -> tuple[int, int, int]:
        return self.attempt, self.deliveries, self.strikes


@attrs.define
class BrokerModel:
    """A broker.

    Args:
        retention: seconds for which a dead letter is kept.
        exact: whether what comes back has its old turn, and time is exact. Otherwise what the contract says must do.
    """

    retention: float
    exact: bool
    tasks: dict[str, Task] = attrs.field(factory=dict)
    last_token: int = -1
    _turns: int = 0

    # --- time ---------------------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Everything that happens by itself up to now, in the order in which it does."""
        ending = [task for task in self.tasks.values() if task.place != "ready" and task.until <= now]
        for task in sorted(ending, key=lambda task: (task.until, task.turn)):
            if task.place == "delayed":
                self._ready(task)
            elif task.place == "leased":
                task.strikes += 1
                self._come_back(task)
            else:
                del self.tasks[task.id]

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _ready(self, task: Task) -> None:
        task.place, task.turn, task.came_back = "ready", self._next_turn(), False

    def _come_back(self, task: Task) -> None:
        task.place, task.came_back, task.token = "ready", True, None

    def _wait_or_ready(self, task: Task, now: float, delay: float) -> None:
        self._ready(task)
        if delay > 0:
            task.place, task.until = "delayed", now + delay

    # --- looking ------------------------------------------------------------------------------------------------------

    def at(self, queue: str, *places: Place) -> list[Task]:
        """Tasks of a queue in certain places."""
        return [task for task in self.tasks.values() if task.envelope.queue == queue and task.place in places]

    def counts(self, queue: str) -> tuple[int, int, int, int]:
        """Ready, delayed, leased, dead."""
        return (
            len(self.at(queue, "ready")),
            len(self.at(queue, "delayed")),
            len(self.at(queue, "leased")),
            len(self.at(queue, "dead")),
        )

    def waiting(self, queue: str) -> list[Task]:
        """What `peek` shows, in order."""
        ready = sorted(self.at(queue, "ready"), key=lambda task: (-task.envelope.priority, task.turn))
        return ready + sorted(self.at(queue, "delayed"), key=lambda task: (task.until, task.turn))

    def dead(self, queue: str) -> list[Task]:
        """The newest first."""
        return sorted(self.at(queue, "dead"), key=lambda task: -task.turn)

    # --- moves --------------------------------------------------------------------------------------------------------

    def publish(self, envelope: Envelope, now: float, delay: float) -> bool:
        if envelope.id in self.tasks:
            return False
        task = self.tasks[envelope.id] = Task(envelope)
        self._wait_or_ready(task, now, delay)
        return True

    def claim(self, queues: list[str], limit: int, deliveries: list[Delivery], now: float) -> None:
        """Check that these deliveries are what a claim may return now, and hand them out."""
        ready = [task for queue in queues for task in self.at(queue, "ready")]
        if self.exact:
            assert len(deliveries) == min(limit, len(ready))
        else:
            assert min(1, len(ready)) <= len(deliveries) <= limit
        taken = [self.tasks[delivery.envelope.id] for delivery in deliveries]
        assert len(set(map(id, taken))) == len(taken), "a task was handed out twice"
        assert all(task in ready for task in taken), "a task was handed out that was not ready"
        priorities = [task.envelope.priority for task in taken]
        assert priorities == sorted(priorities, reverse=True)
        for queue in queues:
            self._check_turns(queue, [task for task in taken if task.envelope.queue == queue], priorities)
        for task, delivery in zip(taken, deliveries, strict=True):
            self._hand_out(task, delivery, now)

    def _check_turns(self, queue: str, taken: list[Task], priorities: list[int]) -> None:
        ready = [task for task in self.waiting(queue) if task.place == "ready"]
        left = [task for task in ready if task not in taken]
        if priorities:
            assert all(task.envelope.priority <= priorities[-1] for task in left), "a higher priority was left behind"
        if not self.exact:  # then only those that never came back are sure to be in order
            ready = [task for task in ready if not task.came_back]
            taken = [task for task in taken if not task.came_back]
        for priority in set(priorities):
            lane = [task.id for task in ready if task.envelope.priority == priority]
            mine = [task.id for task in taken if task.envelope.priority == priority]
            assert mine == lane[: len(mine)], "not first come, first served"

    def _hand_out(self, task: Task, delivery: Delivery, now: float) -> None:
        lease = delivery.lease
        task.deliveries += 1
        assert delivery.envelope == task.envelope
        assert (delivery.attempt, delivery.deliveries, delivery.strikes) == task.numbers
        assert delivery.revoked == task.revoked
        assert lease.queue == task.envelope.queue
        assert lease.duration == task.envelope.visibility_timeout
        if self.exact:
            assert lease.deadline == now + lease.duration
            assert lease.token > self.last_token
            self.last_token = lease.token
        task.place, task.until, task.token = "leased", now + lease.duration, lease.token

    def held_by(self, lease: Lease) -> Task | None:
        """The task that a lease is good for."""
        task = self.tasks.get(lease.task_id)
        return task if task is not None and task.place == "leased" and task.token == lease.token else None

    def renew(self, lease: Lease, now: float) -> bool:
        task = self.held_by(lease)
        if task is None:
            return False
        task.until = max(task.until, now + lease.duration)
        return True

    def settle(self, lease: Lease, settlement: Settlement, now: float) -> bool:
        task = self.held_by(lease)
        if task is None:
            return False
        task.token = None
        match settlement:
            case Complete():
                del self.tasks[task.id]
            case Retry(delay):
                task.attempt += 1
                task.strikes = 0
                self._wait_or_ready(task, now, delay if task.revoked is None else 0.0)
            case MoveToDead(reason, detail):
                task.place, task.until, task.turn = "dead", now + self.retention, self._next_turn()
                task.reason, task.detail = reason, detail
            case Release():
                self._come_back(task)
        return True

    def revoke(self, queue: str, task_id: str, reason: str) -> bool:
        task = self.tasks.get(task_id)
        if task is None or task.envelope.queue != queue or task.place == "dead":
            return False
        task.revoked = reason
        if task.place == "delayed":
            self._ready(task)
        return True

    def purge(self, queue: str, task_ids: list[str] | None, *places: Place) -> int:
        doomed = [task for task in self.at(queue, *places) if task_ids is None or task.id in task_ids]
        for task in doomed:
            del self.tasks[task.id]
        return len(doomed)

    def replay(self, queue: str, task_id: str, now: float, delay: float) -> bool:
        task = self.tasks.get(task_id)
        if task is None or task.envelope.queue != queue or task.place != "dead":
            return False
        task.attempt = task.strikes = 0
        task.revoked = None
        self._wait_or_ready(task, now, delay)
        return True


@attrs.define
class BackendModel:
    """A result backend: by task id the status in place, and when its retention ends."""

    kept: dict[str, tuple[TaskStatus, float]] = attrs.field(factory=dict)

    def advance(self, now: float) -> None:
        self.kept = {task_id: entry for task_id, entry in self.kept.items() if entry[1] > now}

    def record(self, status: TaskStatus, now: float) -> bool:
        entry = self.kept.get(status.id)
        if entry is not None and entry[0].version > status.version:
            return False
        self.kept[status.id] = (status, now + status.ttl)
        return True

    def get(self, task_id: str) -> TaskStatus | None:
        entry = self.kept.get(task_id)
        return None if entry is None else entry[0]
