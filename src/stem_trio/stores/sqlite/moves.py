"""How tasks move between their places: functions of one transaction, each for a batch.

Every one of them first lets happen in its queues what is due: see `advance`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ...envelope import QueueStats
from ...outcome import Complete, MoveToDead, Release, Retry
from . import statements
from .clock import MICRO, micro
from .transaction import key, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...envelope import Lease
    from ...outcome import Settlement
    from .transaction import Transaction

__all__ = [
    "Keep",
    "Letters",
    "Row",
    "Turns",
    "advance",
    "claim",
    "count",
    "find_dead",
    "find_revoked",
    "give_back",
    "list_dead",
    "next_change",
    "peek",
    "publish",
    "purge",
    "renew",
    "replay",
    "revoke",
    "settle",
]

READY: Final = 0
DELAYED: Final = 1
LEASED: Final = 2
DEAD: Final = 3

_BATCH: Final = 1000
"""How many tasks one transaction moves by the mere passing of time, or deletes: others wait meanwhile."""
_MOST: Final = 100
"""How many tasks one claim takes at most: their envelopes come in one piece."""


class Keep:
    """How long, and how many, dead letters are kept.

    Args:
        retention: seconds.
        most: how many of a queue.
    """

    def __init__(self, retention: float, most: int) -> None:
        self.retention: Final = micro(retention)
        self.most: Final = most
        self._room: dict[str, int] = {}

    def is_full(self, queue: str, added: int) -> bool:
        """Whether it is time to count again: counting takes longer than burying, so it is not done each time."""
        left = self._room.get(queue, 0) - added
        self._room[queue] = left
        return left < 0

    def counted(self, queue: str) -> None:
        """The queue has no more than are to be kept."""
        if len(self._room) > _BATCH:
            self._room.clear()
        self._room[queue] = self.most // 10


# --- the passing of time ------------------------------------------------------------------------------------------


def advance(work: Transaction, queue: str, keep: Keep) -> None:
    """Let happen what is due: delayed tasks get ready, ended leases come back, old dead letters go.

    In batches: what is left over waits for the next transaction.
    """
    if queue in work.advanced:
        return
    work.advanced.add(queue)
    now = work.now
    old = now.time - keep.retention
    due, ended, outlived = work.row(statements.IS_DUE, queue, now.time, now.lease, old)
    if due:
        first = work.take(_BATCH)
        work.run(statements.PROMOTE, queue, now.time, first - 1, _BATCH)
    if ended:
        work.run(statements.RECLAIM, queue, now.lease, _BATCH)
    if outlived:
        work.run(statements.FORGET_DEAD, queue, old, _BATCH)
    if due or ended:
        work.change.queues.add(queue)


def next_change(work: Transaction, queues: Iterable[str]) -> float:
    """Seconds until a task of these queues gets ready by itself."""
    first = math.inf
    for queue in queues:
        due, end = work.row(statements.NEXT_DUE, queue)
        if due is not None:
            first = min(first, due - work.now.time)
        if end is not None:
            first = min(first, end - work.now.lease)
    return max(0.0, first / MICRO)


# --- publishing and claiming --------------------------------------------------------------------------------------


def publish(work: Transaction, keep: Keep, rows: str, count: int, queues: frozenset[str], delay: int) -> list[bool]:
    """Put tasks in; for each, whether it is new. `rows` are those of the statement, packed."""
    if not count:
        return []
    for queue in queues:
        advance(work, queue, keep)
    first = work.take(count)
    place, due = (DELAYED, work.now.time + delay) if delay > 0 else (READY, 0)
    added = work.run(statements.PUBLISH, rows, place, due, first)
    if added:
        work.change.queues |= queues
    if added == count:
        return [True] * count
    result = [False] * count
    for position in unpack(work.value(statements.FIND_PUBLISHED, rows, first)):
        result[position] = True
    return result


Row = tuple[int, int, int, int, str | None, int, str, str]
"""Of a task that is claimed: number, attempt, deliveries, strikes, revoked, length of the lease, id, queue."""


class Turns:
    """Which queue was served when, so that they take turns within a priority."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._count = 0

    def last(self, queue: str) -> int:
        """When it was; 0 for never."""
        return self._served.get(queue, 0)

    def serve(self, queue: str) -> None:
        """It is now."""
        self._count += 1
        self._served.pop(queue, None)
        self._served[queue] = self._count
        if len(self._served) > _BATCH:
            del self._served[next(iter(self._served))]


def claim(
    work: Transaction, keep: Keep, turns: Turns, queues: Sequence[str], limit: int
) -> tuple[list[Row], list[str], int]:
    """Take tasks under lease: their rows as they were, their envelopes, and the first of their tokens."""
    limit = min(limit, _MOST)
    for queue in queues:
        advance(work, queue, keep)
    if len(queues) == 1:
        states, envelopes = work.row(statements.FIND_READY, queues[0], limit)
    else:
        chosen = _choose(work, turns, queues, limit)
        states, envelopes = work.row(statements.FIND_NUMBERS, pack(chosen))
    rows: list[Row] = unpack(states)
    if not rows:
        return [], [], 0
    first = work.take(len(rows))
    work.run(statements.LEASE, pack([row[0] for row in rows]), work.now.lease, first)
    return rows, unpack(envelopes), first


def _choose(work: Transaction, turns: Turns, queues: Sequence[str], limit: int) -> list[int]:
    """Numbers of the best tasks of several queues; within a priority the queue that was served longest ago is next."""
    heads: dict[str, list[tuple[int, int, int]]] = {}
    for queue in queues:
        found = unpack(work.value(statements.FIND_READY_NUMBERS, queue, limit))
        if found:
            heads[queue] = found[::-1]
    chosen: list[int] = []
    while heads and len(chosen) < limit:
        queue = min(heads, key=lambda name: (heads[name][-1][0], turns.last(name)))
        turns.serve(queue)
        chosen.append(heads[queue].pop()[2])
        if not heads[queue]:
            del heads[queue]
    return chosen


def give_back(work: Transaction, rows: Sequence[tuple[int, int]], queues: Iterable[str]) -> None:
    """Release what was just claimed from these queues: numbers with their tokens."""
    if work.run(statements.GIVE_BACK, pack(rows)):
        work.change.queues.update(queues)


# --- leases -------------------------------------------------------------------------------------------------------


def _find_held(work: Transaction, leases: Iterable[Lease]) -> tuple[list[int], dict[int, bool]]:
    """Numbers of the tasks of leases, and by position, for those that hold, whether the task is revoked."""
    rows = [(_number(lease), key(lease.task_id), lease.token) for lease in leases]
    held = dict(unpack(work.value(statements.FIND_HELD, pack(rows), work.now.lease)))
    return [row[0] for row in rows], held


def _number(lease: Lease) -> int:
    return int(lease.receipt) if lease.receipt.isdecimal() and len(lease.receipt) < 19 else -1


def renew(work: Transaction, keep: Keep, leases: Sequence[Lease]) -> list[bool]:
    """Let leases last from now on; for each, whether it holds."""
    for queue in {key(lease.queue) for lease in leases}:
        advance(work, queue, keep)
    numbers, held = _find_held(work, leases)
    until: dict[int, int] = {}
    for position in held:
        number = numbers[position]
        until[number] = max(until.get(number, 0), work.now.lease + micro(leases[position].duration))
    if until:
        work.run(statements.RENEW, pack(list(until.items())))
    return [position in held for position in range(len(leases))]


def settle(work: Transaction, keep: Keep, settlements: Sequence[tuple[Lease, Settlement]]) -> list[bool]:
    """End deliveries; for each, whether it was done."""
    for queue in {key(lease.queue) for lease, _ in settlements}:
        advance(work, queue, keep)
    numbers, held = _find_held(work, (lease for lease, _ in settlements))
    result = [False] * len(settlements)
    over: list[int] = []
    retried: list[tuple[int, int | None]] = []
    released: list[int] = []
    buried: list[tuple[int, str]] = []
    graves: dict[str, int] = {}
    used: set[int] = set()
    for position, (lease, settlement) in enumerate(settlements):
        number = numbers[position]
        if position not in held or number in used:
            continue
        used.add(number)
        result[position] = True
        if isinstance(settlement, Complete):
            over.append(number)
        elif isinstance(settlement, Retry):
            # What is revoked does not run again, so there is nothing to wait for.
            waits = settlement.delay > 0 and not held[position]
            retried.append((number, work.now.time + micro(settlement.delay) if waits else None))
            work.change.queues.add(key(lease.queue))
        elif isinstance(settlement, MoveToDead):
            buried.append((number, pack((settlement.reason, settlement.detail, work.now.wall))))
            graves[key(lease.queue)] = graves.get(key(lease.queue), 0) + 1
        else:
            assert isinstance(settlement, Release), "checked before"
            released.append(number)
            work.change.queues.add(key(lease.queue))
    if over:
        work.run(statements.DELETE, pack(over))
    if retried:
        work.run(statements.RETRY, pack(retried), work.take(len(retried)))
    if released:
        work.run(statements.RELEASE_LEASE, pack(released))
    if buried:
        work.run(statements.BURY, pack(buried), work.now.time, work.take(len(buried)))
    for queue, added in graves.items():
        if keep.is_full(queue, added):
            trimmed = work.run(statements.TRIM_DEAD, queue, keep.most, _BATCH)
            if trimmed < _BATCH:
                keep.counted(queue)
    return result


# --- operating ----------------------------------------------------------------------------------------------------


def _find_ids(work: Transaction, queue: str, task_ids: Sequence[str]) -> list[tuple[int, int, int]]:
    """Position, number and place of those that the queue holds, in the order of the batch."""
    found = unpack(work.value(statements.FIND_IDS, queue, pack([key(task_id) for task_id in task_ids])))
    return sorted((position, number, place) for position, number, place in found)


def revoke(work: Transaction, keep: Keep, queue: str, task_ids: Sequence[str], reason: str) -> list[bool]:
    """Mark tasks; for each id, whether it was."""
    advance(work, queue, keep)
    found = [entry for entry in _find_ids(work, queue, task_ids) if entry[2] != DEAD]
    result = [False] * len(task_ids)
    for position, _, _ in found:
        result[position] = True
    work.run(statements.REVOKE, pack([number for _, number, _ in found]), pack([reason]))
    hurried = list(dict.fromkeys(number for _, number, place in found if place == DELAYED))
    if hurried:
        work.run(statements.HURRY, pack(hurried), work.take(len(hurried)))
        work.change.queues.add(queue)
    return result


def find_revoked(work: Transaction, queue: str, task_ids: Sequence[str]) -> list[str | None]:
    """For each id the reason for which it is revoked, or None."""
    result: list[str | None] = [None] * len(task_ids)
    found = unpack(work.value(statements.FIND_REVOKED, queue, pack([key(task_id) for task_id in task_ids])))
    for position, reason in found:
        [result[position]] = unpack(reason)
    return result


def purge(work: Transaction, keep: Keep, queue: str, task_ids: Sequence[str] | None, *, dead: bool) -> int:
    """Delete tasks that wait, or dead letters: those with the ids, or the next few of all; how many."""
    advance(work, queue, keep)
    if task_ids is None:
        return work.run(statements.PURGE_DEAD if dead else statements.PURGE_WAITING, queue, _BATCH)
    places = (DEAD,) if dead else (READY, DELAYED)
    doomed = {number for _, number, place in _find_ids(work, queue, task_ids) if place in places}
    return work.run(statements.DELETE, pack(doomed))


def count(work: Transaction, keep: Keep, queue: str) -> QueueStats:
    """How many tasks are in which place."""
    advance(work, queue, keep)
    found = dict(work.execute(statements.COUNT, statements.bind(queue)).fetchall())
    return QueueStats(
        ready=found.get(READY, 0), delayed=found.get(DELAYED, 0), leased=found.get(LEASED, 0), dead=found.get(DEAD, 0)
    )


def peek(work: Transaction, keep: Keep, queue: str, limit: int, offset: int) -> tuple[Any, list[str], int]:
    """Tasks that wait: place, moment, attempt, deliveries and id of each, their envelopes, and the moment of this."""
    advance(work, queue, keep)
    states, envelopes = work.row(statements.PEEK, queue, limit, offset)
    return unpack(states), unpack(envelopes), work.now.time


# --- dead letters -------------------------------------------------------------------------------------------------

Letters = tuple[list[tuple[str, int, int, int, str]], list[str]]
"""Of dead letters: letter, attempt, deliveries, strikes and id of each, and their envelopes."""


def list_dead(work: Transaction, keep: Keep, queue: str, limit: int, offset: int) -> Letters:
    """Dead letters, the newest first."""
    advance(work, queue, keep)
    states, envelopes = work.row(statements.LIST_DEAD, queue, limit, offset)
    return unpack(states), unpack(envelopes)


def find_dead(work: Transaction, keep: Keep, queue: str, task_ids: Sequence[str]) -> tuple[dict[int, int], Letters]:
    """By position in the batch the number of those that are dead letters, and in this order what they are."""
    advance(work, queue, keep)
    numbers: dict[int, int] = {}
    seen: set[int] = set()
    for position, number, place in _find_ids(work, queue, task_ids):
        if place == DEAD and number not in seen:
            seen.add(number)
            numbers[position] = number
    states, envelopes = work.row(statements.GET_DEAD, pack(list(numbers.values())))
    return numbers, (unpack(states), unpack(envelopes))


def replay(work: Transaction, keep: Keep, queue: str, task_ids: Sequence[str], delay: int) -> tuple[list[int], Letters]:
    """Put dead letters back: their positions in the batch, and what they were."""
    numbers, letters = find_dead(work, keep, queue, task_ids)
    if numbers:
        place, due = (DELAYED, work.now.time + delay) if delay > 0 else (READY, 0)
        work.run(statements.REPLAY, pack(list(numbers.values())), place, due, work.take(len(numbers)))
        work.change.queues.add(queue)
    return list(numbers), letters
