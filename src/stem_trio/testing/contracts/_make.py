"""Envelopes, statuses and heartbeats for tests, with sensible values for whatever a test does not care about."""

from __future__ import annotations

import time
from typing import Any

from ...envelope import Envelope
from ...ids import new_task_id
from ...status import Rank, TaskState, TaskStatus, WorkerHeartbeat

__all__ = ["ODD_NAMES", "RANKS", "make_envelope", "make_heartbeat", "make_status"]

ODD_NAMES = (
    "a|b",
    "a:b",
    "a",
    "b",
    "a b",
    "a.b/c\\d",
    "{a}",
    "a{b}c",
    "{}",
    "*",
    "a?[b]*",
    "..",
    "%s %(a)s",
    "'; DROP TABLE tasks; --",
    'say "hi"',
    "A",
    "ä-Привет-队列-🦆",
    "x" * 200,
)
"""Names that a careless key layout or query would trip over; all of them are allowed for queues."""

RANKS = (
    (TaskState.QUEUED, Rank.ENQUEUED),
    (TaskState.RUNNING, Rank.RUNNING),
    (TaskState.QUEUED, Rank.GIVEN_BACK),
    (TaskState.RETRYING, Rank.GIVEN_BACK),
    (TaskState.SUCCEEDED, Rank.TERMINAL),
    (TaskState.FAILED, Rank.TERMINAL),
    (TaskState.REVOKED, Rank.TERMINAL),
    (TaskState.EXPIRED, Rank.TERMINAL),
    (TaskState.QUEUED, Rank.REPLAYED),
)
"""Every state with the rank, or ranks, that the runtime records it with."""

_RANK_OF_STATE = dict(reversed(RANKS))  # the lowest where there are several


def make_envelope(name: str = "t", *, queue: str = "default", **fields: Any) -> Envelope:
    """An envelope with a new id; `fields` are any others of `Envelope`."""
    fields.setdefault("id", new_task_id())
    fields.setdefault("created_at", time.time())
    return Envelope(name=name, queue=queue, **fields)


def make_status(
    task_id: str, state: TaskState = TaskState.RUNNING, *, deliveries: int = 1, **fields: Any
) -> TaskStatus:
    """A status as a worker would record it during its hand-out number `deliveries`; `fields` are any others."""
    fields.setdefault("version", deliveries * Rank.SPAN + _RANK_OF_STATE[state])
    fields.setdefault("name", "t")
    fields.setdefault("queue", "default")
    fields.setdefault("updated_at", time.time())
    fields.setdefault("ttl", 600.0)
    return TaskStatus(id=task_id, state=state, deliveries=deliveries, **fields)


def make_heartbeat(worker: str, **fields: Any) -> WorkerHeartbeat:
    """A heartbeat; `fields` are any others of `WorkerHeartbeat`."""
    values: dict[str, Any] = {
        "host": "host",
        "pid": 1,
        "state": "running",
        "queues": ("default",),
        "concurrency": 4,
        "in_flight": 0,
        "running": 0,
        "totals": {},
        "started_at": time.time(),
        "sent_at": time.time(),
    }
    return WorkerHeartbeat(worker=worker, **{**values, **fields})
