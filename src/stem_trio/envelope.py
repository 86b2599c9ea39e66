"""What travels: the immutable envelope of one enqueued task, and the hand-out of it to one worker.

On the wire an envelope is one JSON object with the fields below, in their order, compact, defaults left out. Arguments
and meta stay raw JSON in it, so that they are decoded once, by whoever needs them, into the types of the handler.
Everything that changes while a task lives (attempts, deliveries, due time) is delivery state, kept by the broker beside
the envelope and never inside it; a signature over the envelope therefore stays valid through retry, release and replay.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec

from .retry import Backoff

__all__ = ["WIRE_VERSION", "DeadLetter", "Delivery", "Envelope", "Lease", "QueueStats", "Signature", "WaitingTask"]

WIRE_VERSION: Final = 1
UNREADABLE: Final = "(unreadable)"
"""Name of what stands for a task whose message cannot be read."""
_EMPTY: Final = msgspec.Raw(b"{}")


@final
class Signature(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Who vouches for an envelope; see `PayloadSigner`. On the wire `value` is base64.

    Attributes:
        key: id of the key it was made with.
        algorithm: what it was made by; the verifier's key decides, this must agree with it.
        due_at: when the task was to be handed out first, seconds since the epoch; None when at once.
        value: the signature, over everything else in the envelope.
    """

    key: str
    algorithm: str
    due_at: float | None = None
    value: bytes = b""


@final
class Envelope(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One enqueued task. Immutable; times are seconds since the epoch, durations seconds.

    Attributes:
        v: version of the wire format.
        id: task id, a UUIDv7 unless the caller chose it.
        name: task name.
        queue: queue it was sent to.
        created_at: when the producer made it.
        args: the arguments, a JSON object.
        headers: text for transports, tracing and routing.
        meta: any JSON object of the caller's.
        priority: 0 to 9, 9 first.
        expires_at: not to be started at or after this moment.
        max_retries: runs allowed after the first failed one.
        backoff: how long to wait between runs, when this call overrides what the task says.
        visibility_timeout: length of a lease on it.
        soft_time_limit: see `TaskOptions`.
        hard_time_limit: see `TaskOptions`.
        max_strikes: see `TaskOptions`.
        result_ttl: how long its status is kept after the end.
        ignore_result: whether the returned value is dropped.
        parent_id: id of the task whose handler enqueued it.
        parent_attempt: attempt of the parent that did.
        root_id: id of the first task of the line.
        signature: over all fields before it, where the producer signs.
    """

    v: int = 0
    id: str
    name: str
    queue: str
    created_at: float
    args: msgspec.Raw = _EMPTY
    headers: dict[str, str] = {}
    meta: msgspec.Raw = _EMPTY
    priority: int = 0
    expires_at: float | None = None
    max_retries: int = 0
    backoff: Backoff | None = None
    visibility_timeout: float = 30.0
    soft_time_limit: float | None = None
    hard_time_limit: float | None = None
    max_strikes: int = 3
    result_ttl: float = 86_400.0
    ignore_result: bool = False
    parent_id: str | None = None
    parent_attempt: int | None = None
    root_id: str | None = None
    signature: Signature | None = None

    def encode(self) -> bytes:
        """The wire form. Deterministic: what `decode` makes of it encodes to the same bytes again.

        A signature over these bytes can therefore be checked wherever the envelope has gone.
        """
        return _encoder.encode(self)

    @classmethod
    def decode(cls, message: bytes) -> Envelope:
        """An envelope from its wire form; `args` and `meta` keep their bytes as they are.

        Raises:
            msgspec.DecodeError: the message is not an envelope, or of a newer wire version.
        """
        try:
            envelope = _decoder.decode(message)
        except (UnicodeDecodeError, RecursionError) as error:  # not wrapped by msgspec
            raise msgspec.DecodeError(str(error)) from error
        if envelope.v > WIRE_VERSION:
            raise msgspec.ValidationError(
                f"envelope of wire version {envelope.v}, this program reads up to {WIRE_VERSION}"
            )
        return envelope

    @classmethod
    def read(cls, message: bytes, *, task_id: str, queue: str) -> tuple[Envelope, str | None]:
        """An envelope from its wire form, for stores: one message that cannot be read must not stand in others' way.

        Returns:
            The envelope, and None; or one in its place that says only id and queue, and what is wrong with the message.
        """
        try:
            envelope = cls.decode(message)
        except msgspec.DecodeError as error:
            problem = str(error)
        else:
            if envelope.id == task_id:
                return envelope, None
            problem = "it has the id of another task"
        return cls(id=task_id, name=UNREADABLE, queue=queue, created_at=0.0), problem


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Envelope)


@final
class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to settle one delivery.

    Attributes:
        task_id: id of the task.
        queue: its queue.
        token: fencing token; the store compares it in the same step in which it settles or renews.
        receipt: where the store finds the delivery; opaque to everybody else.
        duration: seconds for which each successful renewal holds.
        deadline: when the lease ends by this process's `trio.current_time`, counted from before the request was sent.
    """

    task_id: str
    queue: str
    token: int
    duration: float
    deadline: float
    receipt: str = ""


@final
class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One hand-out of an envelope to one worker.

    Attributes:
        envelope: the task.
        lease: the right to settle it.
        attempt: failed runs of the handler so far; 0 for the first run.
        deliveries: hand-outs so far, this one included.
        strikes: hand-outs in a row, before this one, that ended with no outcome.
        claimed_at: the store's own time of the hand-out, in seconds since the epoch.
        revoked: None, or the reason (may be empty) for which the task was revoked while it waited.
        unreadable: None, or why the message cannot be read; then `envelope` knows only its id and queue, the store
            keeps the message as it is, and a worker moves it to the dead letters.
    """

    envelope: Envelope
    lease: Lease
    attempt: int
    deliveries: int
    strikes: int
    claimed_at: float
    revoked: str | None = None
    unreadable: str | None = None


@final
class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks of one queue are in which place; every task is in exactly one of them.

    Attributes:
        ready: may be claimed now.
        delayed: wait for their time (scheduled, or between two runs).
        leased: with a worker.
        dead: with the dead letters.
    """

    ready: int
    delayed: int
    leased: int
    dead: int

    @property
    def unfinished(self) -> int:
        """Tasks that still have to run or to be finished: ready, delayed and leased."""
        return self.ready + self.delayed + self.leased


@final
class WaitingTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that waits in a queue, as `Broker.peek` shows it.

    Attributes:
        envelope: the task.
        place: ``"ready"`` or ``"delayed"``.
        due_in: seconds until it may be claimed; 0 when ready.
        attempt: failed runs so far.
        deliveries: hand-outs so far.
    """

    envelope: Envelope
    place: Literal["ready", "delayed"]
    due_in: float
    attempt: int
    deliveries: int


@final
class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was given up, kept until it is replayed, purged, or its retention ends.

    Attributes:
        envelope: the task; what stands for it if its message cannot be read.
        reason: a `DeadLetterReason`, or any text of the application's.
        detail: what went wrong, for a person.
        dead_at: the store's time of the move, seconds since the epoch.
        attempt: failed runs of the handler.
        deliveries: hand-outs.
        strikes: hand-outs in a row without outcome.
    """

    envelope: Envelope
    reason: str
    detail: str
    dead_at: float
    attempt: int
    deliveries: int
    strikes: int
