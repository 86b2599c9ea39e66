"""What several tests of the model need: envelopes and deliveries with plain values, and a stand-in for the worker."""

from __future__ import annotations

import math
from typing import Any

import attrs
import msgspec
import trio

from stem_trio.envelope import WIRE_VERSION, Delivery, Envelope, Lease
from stem_trio.status import TaskError

BOOM = TaskError(type="ValueError", message="boom")


def make_envelope(**changes: Any) -> Envelope:
    """An envelope that is told apart from any other by what the test changes."""
    fields: dict[str, Any] = {
        "v": WIRE_VERSION,
        "id": "id-1",
        "name": "mail.send",
        "queue": "mail",
        "created_at": 1000.0,
    }
    return Envelope(**(fields | changes))


def make_delivery(envelope: Envelope | None = None, **changes: Any) -> Delivery:
    """The first hand-out of an envelope."""
    envelope = envelope if envelope is not None else make_envelope()
    lease = Lease(task_id=envelope.id, queue=envelope.queue, token=1, duration=30.0, deadline=130.0)
    fields: dict[str, Any] = {"lease": lease, "attempt": 0, "deliveries": 1, "strikes": 0, "claimed_at": 1001.0}
    return Delivery(envelope=envelope, **(fields | changes))


@attrs.define
class Support:
    """Stands behind a `TaskContext`, and writes down what it is asked for."""

    worker: str = "worker-1"
    deadline: float = math.inf
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    cancelled: trio.Event = attrs.field(factory=trio.Event)
    soft_limit_reached: trio.Event = attrs.field(factory=trio.Event)
    soft_limit: float = math.inf
    """When the soft limit passes, by `trio.current_time`."""
    calls: list[tuple[Any, ...]] = attrs.field(factory=list)

    def on_soft_limit(self, scope: trio.CancelScope) -> None:
        scope.deadline = min(scope.deadline, self.soft_limit)

    async def renew(self, duration: float | None) -> None:
        self.calls.append(("renew", duration))

    async def progress(self, percent: float, data: msgspec.Raw | None) -> None:
        self.calls.append(("progress", percent, data))

    async def submit(self, call: Any) -> Any:
        self.calls.append(("submit", call))
        return "the handle"

    async def enqueue(self, name: str, args: Any, options: Any) -> str:
        self.calls.append(("enqueue", name, args, options))
        return "the id"
