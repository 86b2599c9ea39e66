"""How statuses are written, alone or along with tasks: functions of one transaction, each for a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...status import Rank
from . import moves, statements
from .clock import micro
from .transaction import key, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...envelope import Lease
    from ...outcome import Settlement
    from ...status import TaskStatus
    from .transaction import Transaction

__all__ = ["StatusRow", "publish_with", "record", "settle_with", "status_rows"]

StatusRow = tuple[str, int, int, str]
"""Of a status: id, version, microseconds to keep it, JSON."""


def status_rows(statuses: Sequence[TaskStatus]) -> list[StatusRow]:
    """Statuses as they are written."""
    return [
        (key(status.id), status.version, max(1, micro(status.ttl)), status.encode().decode()) for status in statuses
    ]


def _find_versions(work: Transaction, rows: Sequence[StatusRow]) -> dict[str, int]:
    return dict(unpack(work.value(statements.FIND_VERSIONS, pack([row[0] for row in rows]), work.now.time)))


def record(work: Transaction, statuses: Sequence[TaskStatus], rows: Sequence[StatusRow]) -> list[bool]:
    """Write statuses; for each, whether its version was not less than that of the one in place."""
    versions = _find_versions(work, rows)
    last: dict[str, tuple[TaskStatus, int, int, str]] = {}
    result: list[bool] = []
    for status, (name, version, kept_for, body) in zip(statuses, rows, strict=True):
        written = version >= versions.get(name, version)
        result.append(written)
        if written:
            versions[name] = version
            last.pop(name, None)
            last[name] = (status, version, work.now.time + kept_for, body)
    if last:
        first = work.take(len(last))
        work.run(statements.RECORD, pack([(name, *entry[1:]) for name, entry in last.items()]), first)
        work.change.statuses += [(first + position, entry[0]) for position, entry in enumerate(last.values())]
    return result


def _record_some(
    work: Transaction, statuses: Sequence[TaskStatus], rows: Sequence[StatusRow], positions: Sequence[int]
) -> None:
    if positions:
        record(work, [statuses[position] for position in positions], [rows[position] for position in positions])


def publish_with(
    work: Transaction,
    *,
    keep: moves.Keep,
    tasks: Sequence[tuple[Any, ...]],
    queues: frozenset[str],
    delay: int,
    statuses: Sequence[TaskStatus],
    rows: Sequence[StatusRow],
) -> list[bool]:
    """Put tasks in with their statuses; for each, whether it is new, and not over as far as its status tells."""
    over = {name for name, version in _find_versions(work, rows).items() if version % Rank.SPAN == Rank.TERMINAL}
    wanted = [position for position, row in enumerate(rows) if row[0] not in over]
    chosen = pack([tasks[position] for position in wanted])
    added = moves.publish(work, keep=keep, rows=chosen, count=len(wanted), queues=queues, delay=delay)
    new = [position for position, is_new in zip(wanted, added, strict=True) if is_new]
    _record_some(work, statuses, rows, new)
    result = [False] * len(tasks)
    for position in new:
        result[position] = True
    return result


def settle_with(
    work: Transaction,
    *,
    keep: moves.Keep,
    settlements: Sequence[tuple[Lease, Settlement]],
    statuses: Sequence[TaskStatus],
    rows: Sequence[StatusRow],
) -> list[bool]:
    """End deliveries with their statuses; for each, whether it was done."""
    result = moves.settle(work, keep, settlements)
    _record_some(work, statuses, rows, [position for position, done in enumerate(result) if done])
    return result
