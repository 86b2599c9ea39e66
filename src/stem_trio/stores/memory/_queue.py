"""One queue of the in-memory broker: in which place each of its tasks is, and how it moves to another.

Plain data and plain functions: no waiting, no checkpoints, so that each call is one step to everybody else. Moments
are `trio.current_time`; every function that depends on one is told it. Once `TaskQueue.wake_at` has come, callers call
`TaskQueue.advance` before anything else, so that the places are what they should be at that moment.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING, Final, final

import msgspec

from ...envelope import DeadLetter, Delivery, Envelope, Lease, QueueStats, WaitingTask
from ...outcome import Complete, MoveToDead, Release, Retry, Settlement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...clock import WallClock
    from ._waiting import Waiter

__all__ = ["Held", "Lane", "TaskQueue"]

# The places. Plain numbers: comparing members of an enum costs several times as much, and this is done for every task.
READY: Final = 0
DELAYED: Final = 1
LEASED: Final = 2
DEAD: Final = 3
GONE: Final = 4

_NEVER: Final = float("inf")
_SLACK: Final = 64
"""Entries left behind by removed tasks that are not worth a clean-up yet."""


@final
class Held(msgspec.Struct, eq=False, gc=False):
    """One task that a queue holds. It refers to nothing that refers back, so the collector need not look at it.

    Attributes:
        envelope: the task.
        place: one of the places above.
        order: when ready or leased, its turn within its lane; when delayed, the number of its entry in the heap.
        until: when its place ends: due time, end of the lease, or end of the retention of a dead letter.
        letter: what is shown of it while it is dead.
    """

    envelope: Envelope
    place: int = GONE
    order: int = 0
    until: float = 0.0
    attempt: int = 0
    deliveries: int = 0
    strikes: int = 0
    revoked: str | None = None
    letter: DeadLetter | None = None


@final
class Lane:
    """The ready tasks of one priority, in the order of their turns.

    Tasks that come back (released, or with their lease at an end) had their turn before everything in `fresh`, which
    is why a second container, looked at first, keeps the order without ever inserting into the first.

    Removed tasks stay as entries whose place is not READY, to be skipped; `stale` counts them.
    """

    __slots__ = ("fresh", "priority", "returned", "stale")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.fresh: deque[Held] = deque()
        self.returned: list[tuple[int, Held]] = []
        self.stale = 0

    def live(self) -> int:
        """How many ready tasks it has."""
        return len(self.fresh) + len(self.returned) - self.stale

    def tasks(self) -> Iterator[Held]:
        """The ready tasks in the order of their turns."""
        for _, held in sorted(self.returned, key=_order_of_entry):
            if held.place == READY:
                yield held
        for held in self.fresh:
            if held.place == READY:
                yield held

    def clear(self) -> None:
        """Forget all entries."""
        self.fresh.clear()
        self.returned.clear()
        self.stale = 0

    def tidy(self) -> None:
        """Drop stale entries: those at the front at once, as a purge mostly starts there, the others when many."""
        while self.fresh and self.fresh[0].place != READY:
            self.fresh.popleft()
            self.stale -= 1
        if self.stale > self.live() + _SLACK:
            self.fresh = deque(held for held in self.fresh if held.place == READY)
            self.returned = [entry for entry in self.returned if entry[1].place == READY]
            heapq.heapify(self.returned)
            self.stale = 0


def _order_of_entry(entry: tuple[int, Held]) -> int:
    return entry[0]


@final
class TaskQueue:
    """One queue.

    Leases have no entry in a heap: most are settled long before their end, and at 20,000 tasks a second under leases
    of 30 seconds such a heap would hold 600,000 dead entries. Instead `_next_expiry` is a lower bound of all ends, and
    when it has come the leased tasks, which are few, are looked through once, and the bound is set anew.

    Args:
        name: its name.
        ids: everything that the broker holds, by task id; shared by all its queues.
        clock: tells the time of day.
        keep_dead: seconds for which a dead letter is kept.
        max_dead: how many of them are kept.
    """

    __slots__ = (
        "_clock",
        "_dead",
        "_delayed",
        "_heap",
        "_ids",
        "_keep_dead",
        "_max_dead",
        "_next_due",
        "_next_expiry",
        "_next_forget",
        "_order",
        "lanes",
        "leased",
        "name",
        "ready",
        "served",
        "waiters",
        "wake_at",
    )

    def __init__(self, name: str, ids: dict[str, Held], *, clock: WallClock, keep_dead: float, max_dead: int) -> None:
        self.name = name
        self.lanes: list[Lane] = []  # highest priority first; one for each priority that was ever used
        self.ready = 0
        self.leased: dict[int, Held] = {}  # by lease token
        self.served = 0  # when a claim from several queues last took from this one; see `InMemoryBroker._take`
        self.waiters: dict[Waiter, None] = {}  # in the order in which they began to wait
        self.wake_at = _NEVER  # no task changes its place by the mere passing of time before this moment
        self._ids = ids
        self._clock = clock
        self._keep_dead = keep_dead
        self._max_dead = max_dead
        self._heap: list[tuple[float, int, Held]] = []  # (due, order, task); stale unless delayed with that order
        self._delayed = 0
        self._dead: OrderedDict[str, Held] = OrderedDict()  # oldest first
        self._order = 0
        self._next_due = _NEVER
        self._next_expiry = _NEVER
        self._next_forget = _NEVER

    @property
    def idle(self) -> bool:
        """Whether it holds nothing and nobody waits for it, so that forgetting it makes no difference."""
        return not (self.ready or self._delayed or self.leased or self._dead or self.waiters)

    @property
    def ready_at(self) -> float:
        """No task becomes ready by the mere passing of time before this moment."""
        return min(self._next_due, self._next_expiry)

    # --- the passing of time ------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Make the moves that are due: delayed tasks to ready, ended leases back, old dead letters away."""
        if now >= self._next_due:
            self._promote(now)
        if now >= self._next_expiry:
            self._reclaim(now)
        if now >= self._next_forget:
            self._forget(now)
        self.wake_at = min(self._next_due, self._next_expiry, self._next_forget)

    def _promote(self, now: float) -> None:
        heap = self._heap
        while heap:
            due, order, held = heap[0]
            current = held.place == DELAYED and held.order == order
            if current and due > now:
                break
            heapq.heappop(heap)
            if current:
                self._delayed -= 1
                self._to_ready(held)
        self._next_due = heap[0][0] if heap else _NEVER

    def _reclaim(self, now: float) -> None:
        first = _NEVER
        ended: list[int] = []
        for token, held in self.leased.items():
            if held.until <= now:
                ended.append(token)
            elif held.until < first:
                first = held.until
        self._next_expiry = first
        for token in ended:
            held = self.leased.pop(token)
            held.strikes += 1
            self._to_front(held)

    def _forget(self, now: float) -> None:
        dead = self._dead
        while dead:
            oldest = next(iter(dead.values()))
            if oldest.until > now:
                self._next_forget = oldest.until
                return
            self._drop_dead(oldest)
        self._next_forget = _NEVER

    def rebase(self, shift: float) -> None:
        """Move every moment that is kept by `shift` seconds."""
        for held in self.leased.values():
            held.until += shift
        for held in self._dead.values():
            held.until += shift
        entries = [held for _, order, held in self._heap if held.place == DELAYED and held.order == order]
        for held in entries:
            held.until += shift
        self._heap = [(held.until, held.order, held) for held in entries]
        heapq.heapify(self._heap)
        self._next_due += shift
        self._next_expiry += shift
        self._next_forget += shift
        self.wake_at += shift

    # --- moves --------------------------------------------------------------------------------------------------------

    def _to_ready(self, held: Held) -> None:
        """To the end of its lane."""
        self._order += 1
        held.order = self._order
        held.place = READY
        self.ready += 1
        priority = held.envelope.priority
        for lane in self.lanes:
            if lane.priority == priority:
                lane.fresh.append(held)
                return
        self._add_lane(priority).fresh.append(held)

    def _to_front(self, held: Held) -> None:
        """Back to where it was in its lane when it was handed out."""
        held.place = READY
        self.ready += 1
        priority = held.envelope.priority
        lane = next(lane for lane in self.lanes if lane.priority == priority)
        heapq.heappush(lane.returned, (held.order, held))

    def _add_lane(self, priority: int) -> Lane:
        lane = Lane(priority)
        self.lanes.append(lane)
        self.lanes.sort(key=lambda lane: -lane.priority)
        return lane

    def add(self, held: Held, due: float | None) -> None:
        """Put a task in, to be claimed at once or when it is due."""
        if due is None:
            self._to_ready(held)
            return
        self._order += 1
        held.order = self._order
        held.place = DELAYED
        held.until = due
        self._delayed += 1
        heapq.heappush(self._heap, (due, held.order, held))
        if due < self._next_due:
            self._next_due = due
            self.wake_at = min(self.wake_at, due)

    def take(self, lane: Lane, limit: int, now: float, claimed_at: float, tokens: Iterator[int]) -> list[Delivery]:
        """Hand out up to `limit` tasks of one lane.

        Written out in one loop, without calls to the methods above: this is run for every task there is.
        """
        taken: list[Delivery] = []
        returned, fresh, leased, queue = lane.returned, lane.fresh, self.leased, self.name
        first = self._next_expiry
        while len(taken) < limit:
            if returned:
                held = heapq.heappop(returned)[1]
            elif fresh:
                held = fresh.popleft()
            else:
                break
            if held.place != READY:
                lane.stale -= 1
                continue
            envelope = held.envelope
            duration = envelope.visibility_timeout
            deadline = now + duration
            token = next(tokens)
            held.place = LEASED
            held.until = deadline
            held.deliveries += 1
            leased[token] = held
            if deadline < first:  # noqa: PLR1730 - `min` takes three times as long
                first = deadline
            lease = Lease(task_id=envelope.id, queue=queue, token=token, duration=duration, deadline=deadline)
            taken.append(
                Delivery(
                    envelope=envelope,
                    lease=lease,
                    attempt=held.attempt,
                    deliveries=held.deliveries,
                    strikes=held.strikes,
                    claimed_at=claimed_at,
                    revoked=held.revoked,
                )
            )
        self.ready -= len(taken)
        if first < self._next_expiry:
            self._next_expiry = first
            self.wake_at = min(self.wake_at, first)
        return taken

    def renew(self, lease: Lease, now: float) -> bool:
        """Let a lease last for its duration from now; False when it is lost."""
        held = self.leased.get(lease.token)
        if held is None or held.envelope.id != lease.task_id:
            return False
        held.until = max(held.until, now + lease.duration)
        return True

    def settle(self, lease: Lease, settlement: Settlement, now: float) -> bool:
        """End a delivery; False when its lease is lost."""
        held = self.leased.get(lease.token)
        if held is None or held.envelope.id != lease.task_id:
            return False
        kind = type(settlement)
        if kind is Complete:
            del self.leased[lease.token]
            held.place = GONE
            del self._ids[lease.task_id]
        elif isinstance(settlement, Retry):
            del self.leased[lease.token]
            held.attempt += 1
            held.strikes = 0
            # What is revoked does not run again, so there is nothing to wait for.
            waits = settlement.delay > 0 and held.revoked is None
            self.add(held, now + settlement.delay if waits else None)
        elif isinstance(settlement, MoveToDead):
            del self.leased[lease.token]
            self._bury(held, settlement, now)
        elif kind is Release:
            del self.leased[lease.token]
            self._to_front(held)
        else:
            raise TypeError(f"not a settlement: {settlement!r}")
        if not self.leased:
            self._next_expiry = _NEVER
        return True

    def revoke(self, task_id: str, reason: str) -> bool:
        """Mark a task that waits or is leased; False when there is none."""
        held = self._ids.get(task_id)
        if held is None or held.envelope.queue != self.name or held.place == DEAD:
            return False
        held.revoked = reason
        if held.place == DELAYED:
            self._delayed -= 1
            self._to_ready(held)
            self._tidy_heap()
        return True

    def revocation(self, task_id: str) -> str | None:
        """Why a task is revoked; None when it is not, or is not there."""
        held = self._ids.get(task_id)
        return held.revoked if held is not None and held.envelope.queue == self.name else None

    # --- looking and removing -----------------------------------------------------------------------------------------

    def stats(self) -> QueueStats:
        """How many tasks are in which place."""
        return QueueStats(ready=self.ready, delayed=self._delayed, leased=len(self.leased), dead=len(self._dead))

    def peek(self, limit: int, offset: int, now: float) -> list[WaitingTask]:
        """Tasks that wait: the ready ones in the order of a claim, then the delayed ones by due time."""
        ready = (held for lane in self.lanes for held in lane.tasks())
        shown = [_show(held, now) for held in islice(ready, offset, offset + limit)]
        missing = limit - len(shown)
        if missing:
            skip = max(0, offset - self.ready)
            entries = (entry for entry in self._heap if entry[2].place == DELAYED and entry[2].order == entry[1])
            shown += [_show(held, now) for _, _, held in heapq.nsmallest(skip + missing, entries)[skip:]]
        return shown

    def purge(self, task_ids: Sequence[str] | None) -> int:
        """Delete tasks that wait."""
        if task_ids is None:
            return self._purge_all()
        count = 0
        for task_id in task_ids:
            held = self._ids.get(task_id)
            if held is None or held.envelope.queue != self.name:
                continue
            if held.place == READY:
                self.ready -= 1
                self._lane_of(held).stale += 1
            elif held.place == DELAYED:
                self._delayed -= 1
            else:
                continue
            held.place = GONE
            del self._ids[task_id]
            count += 1
        for lane in self.lanes:
            lane.tidy()
        self._tidy_heap()
        return count

    def _purge_all(self) -> int:
        for lane in self.lanes:
            for held in lane.tasks():
                del self._ids[held.envelope.id]
            lane.clear()  # and kept: tasks that are leased come back to it
        for _, order, held in self._heap:
            if held.place == DELAYED and held.order == order:
                del self._ids[held.envelope.id]
        count = self.ready + self._delayed
        self.ready = 0
        self._heap = []
        self._delayed = 0
        self._next_due = _NEVER
        return count

    def _lane_of(self, held: Held) -> Lane:
        return next(lane for lane in self.lanes if lane.priority == held.envelope.priority)

    def _tidy_heap(self) -> None:
        """Drop the heap's stale entries when they outnumber the others, so that it cannot grow for ever."""
        if len(self._heap) > 2 * self._delayed + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].place == DELAYED and entry[2].order == entry[1]]
            heapq.heapify(self._heap)

    # --- dead letters -------------------------------------------------------------------------------------------------

    def _bury(self, held: Held, settlement: MoveToDead, now: float) -> None:
        held.place = DEAD
        held.until = now + self._keep_dead
        held.letter = DeadLetter(
            envelope=held.envelope,
            reason=settlement.reason,
            detail=settlement.detail,
            dead_at=self._clock.now(),
            attempt=held.attempt,
            deliveries=held.deliveries,
            strikes=held.strikes,
        )
        self._dead[held.envelope.id] = held
        if len(self._dead) > self._max_dead:
            self._drop_dead(next(iter(self._dead.values())))
        if held.until < self._next_forget:
            self._next_forget = held.until
            self.wake_at = min(self.wake_at, held.until)

    def _drop_dead(self, held: Held) -> None:
        task_id = held.envelope.id
        del self._dead[task_id]
        del self._ids[task_id]

    def list_dead(self, limit: int, offset: int) -> list[DeadLetter]:
        """Dead letters, the newest first."""
        newest_first = islice(reversed(self._dead.values()), offset, offset + limit)
        return [held.letter for held in newest_first if held.letter is not None]

    def get_dead(self, task_id: str) -> DeadLetter | None:
        """One dead letter, or None."""
        held = self._dead.get(task_id)
        return None if held is None else held.letter

    def replay(self, task_id: str, due: float | None) -> DeadLetter | None:
        """Put a dead letter back; None when there is no such."""
        held = self._dead.pop(task_id, None)
        if held is None:
            return None
        letter, held.letter = held.letter, None
        held.attempt = held.strikes = 0
        held.revoked = None
        self.add(held, due)
        return letter

    def purge_dead(self, task_ids: Sequence[str] | None) -> int:
        """Delete dead letters."""
        doomed = list(self._dead) if task_ids is None else task_ids
        count = 0
        for task_id in doomed:
            held = self._dead.get(task_id)
            if held is not None:
                self._drop_dead(held)
                count += 1
        return count


def _show(held: Held, now: float) -> WaitingTask:
    delayed = held.place == DELAYED
    return WaitingTask(
        envelope=held.envelope,
        place="delayed" if delayed else "ready",
        due_in=held.until - now if delayed else 0.0,
        attempt=held.attempt,
        deliveries=held.deliveries,
    )
