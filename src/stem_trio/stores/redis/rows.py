"""Between what scripts take and return, and the records of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...envelope import DeadLetter, Delivery, Envelope, Lease, WaitingTask
from ...outcome import Complete, MoveToDead, Release, Retry, Settlement
from .keys import unpack_state

if TYPE_CHECKING:
    from .connection import Argument

__all__ = ["MICRO", "act", "letter", "make_delivery", "micro", "milli", "waiting_task"]

MICRO: Final = 1_000_000
_decode_letter: Final = msgspec.msgpack.Decoder(tuple[str, str]).decode


def micro(seconds: float) -> int:
    """Seconds in microseconds."""
    return round(seconds * MICRO)


def milli(seconds: float) -> int:
    """Seconds in milliseconds, at least one."""
    return max(1, round(seconds * 1000))


def act(settlement: Settlement) -> Argument:
    """What the script is told to do with a delivery."""
    match settlement:
        case Complete():
            return "C"
        case Retry(delay):
            return f"R{micro(delay)}"
        case MoveToDead(reason, detail):
            return b"D" + msgspec.msgpack.encode((reason, detail))
        case Release():
            return "L"
        case _:
            raise TypeError(f"not a settlement: {settlement!r}")


def make_delivery(
    queue: str,
    task_id: bytes,
    message: bytes | None,
    packed: bytes,
    reason: bytes | None,
    claimed_at: float,
    asked_at: float,
) -> Delivery:
    """A hand-out.

    Args:
        queue: the queue that was asked.
        task_id: id of the task.
        message: its envelope; None where somebody else has deleted it.
        packed: its numbers.
        reason: why it was revoked; None if it was not.
        claimed_at: the server's time.
        asked_at: this process's `trio.current_time` before it asked.
    """
    envelope, unreadable = Envelope.read(message or b"", task_id=task_id.decode(), queue=queue)
    state = unpack_state(packed)
    seconds = state.lease / 1000
    lease = Lease(
        task_id=envelope.id, queue=queue, token=int(state.token), duration=seconds, deadline=asked_at + seconds
    )
    return Delivery(
        envelope=envelope,
        lease=lease,
        attempt=state.attempt,
        deliveries=state.deliveries,
        strikes=state.strikes,
        claimed_at=claimed_at,
        revoked=None if reason is None else reason.decode(),
        unreadable=unreadable,
    )


def waiting_task(queue: str, task_id: bytes, message: bytes | None, packed: bytes, due: int) -> WaitingTask:
    """A task that waits; `due` in microseconds, negative when it is ready."""
    state = unpack_state(packed)
    return WaitingTask(
        envelope=Envelope.read(message or b"", task_id=task_id.decode(), queue=queue)[0],
        place="ready" if due < 0 else "delayed",
        due_in=max(0.0, due / MICRO),
        attempt=state.attempt,
        deliveries=state.deliveries,
    )


def letter(
    queue: str, task_id: bytes, message: bytes | None, packed: bytes, packed_letter: bytes, died: Any
) -> DeadLetter:
    """A dead letter; `died` is the server's time in microseconds."""
    state = unpack_state(packed)
    reason, detail = _decode_letter(packed_letter)
    return DeadLetter(
        envelope=Envelope.read(message or b"", task_id=task_id.decode(), queue=queue)[0],
        reason=reason,
        detail=detail,
        dead_at=float(died) / MICRO,
        attempt=state.attempt,
        deliveries=state.deliveries,
        strikes=state.strikes,
    )
