"""Producers that sign: everything they publish, and nothing when they cannot."""

from __future__ import annotations

import msgspec
import pytest

from stem_trio import (
    PayloadSigner,
    PayloadTooLargeError,
    SigningError,
    SigningKey,
    StemApp,
    StemClient,
    StemSignals,
    TaskState,
)
from stem_trio.clock import TrioClock
from stem_trio.envelope import WIRE_VERSION, Envelope
from tests.producer.support import job

KEY = SigningKey.hmac_sha256("k1", bytes(range(32)))
SIGNER = PayloadSigner([KEY])
PUBLIC = PayloadSigner([SigningKey.ed25519_public("e", SigningKey.ed25519("e", bytes(32)).public)])


async def waiting(stem):
    return {task.envelope.id: task.envelope for task in await stem.broker.peek("jobs")}


async def test_everything_is_signed(make_stem, autojump_clock):
    """G16: one task or many, by name or bound, with headers and meta: each carries a signature of its own."""
    stem = make_stem(signer=SIGNER)
    ids = [
        await stem.enqueue("job", {"number": 1}, headers={"a": "b"}, meta={"c": [1]}),
        (await job.enqueue(stem, 2)).id,
        *await stem.enqueue_many([job.bind(3), job.bind(4)]),
    ]
    envelopes = await waiting(stem)
    assert sorted(envelopes) == sorted(ids)
    assert len({envelope.signature.value for envelope in envelopes.values()}) == 4
    for envelope in envelopes.values():
        SIGNER.verify(envelope)
        assert (envelope.signature.key, envelope.signature.due_at) == ("k1", None)


async def test_delayed(make_stem, autojump_clock):
    """The due time is signed with the task, so that its age can be told."""
    stem = make_stem(signer=SIGNER)
    handle = await job.with_options(delay=60).enqueue(stem, 1)
    envelope = (await waiting(stem))[handle.id]
    assert envelope.signature.due_at == envelope.created_at + 60
    SIGNER.verify(envelope)


async def test_listeners_see_what_is_published(make_stem, world, autojump_clock):
    """The envelope of the events is the signed one."""
    seen = []
    world.signals.before_task_publish.connect(lambda event: seen.append(event.envelope))
    stem = make_stem(signer=SIGNER)
    handle = await job.enqueue(stem, 1)
    assert seen == [(await waiting(stem))[handle.id]]


async def test_public_keys_only(make_stem, world, autojump_clock):
    """G16: who cannot sign is told so before anything is written; nothing goes out without a signature."""
    stem = make_stem(signer=PUBLIC)
    with pytest.raises(SigningError, match="private key"):
        await job.enqueue(stem, 1)
    with pytest.raises(SigningError):
        await stem.enqueue_many([job.bind(3), job.bind(4)])
    assert world.faults.trace == []
    assert await waiting(stem) == {}


async def test_without_signer(stem, autojump_clock):
    """Nothing is signed unless somebody asks for it."""
    handle = await job.enqueue(stem, 1)
    assert (await waiting(stem))[handle.id].signature is None


async def test_the_signature_counts(make_stem, autojump_clock):
    """The limit holds for what is written, signature included."""
    call = {"task_id": "x", "headers": {"a": "b"}}
    plain = make_stem()
    handle = await job.with_options(**call).enqueue(plain, 1)
    size = len((await waiting(plain))[handle.id].encode())
    with pytest.raises(PayloadTooLargeError) as caught:
        await job.with_options(**call).enqueue(make_stem(signer=SIGNER, max_payload_size=size + 10), 1)
    assert caught.value.size > size + 50


async def test_client(autojump_clock):
    """`StemClient(signer=)`."""
    async with StemClient.in_memory(tasks=[job], signals=StemSignals(), clock=TrioClock(), signer=SIGNER) as client:
        task_id = await client.enqueue("job", {"number": 1})
        SIGNER.verify((await waiting(client))[task_id])


async def test_app(autojump_clock):
    """G16: an app signs what it enqueues, and its worker runs nothing else."""
    app = StemApp.in_memory(tasks=[job], signals=StemSignals(), clock=TrioClock(), signer=SIGNER)
    async with app:
        handle = await job.enqueue(app, 1)
        assert await handle.result(timeout=10) == 1
        good = SIGNER.sign(made_by_hand(app, "good"))
        other = PayloadSigner([SigningKey.hmac_sha256("k1", bytes(32))])
        await app.broker.publish([good, other.sign(made_by_hand(app, "forged")), made_by_hand(app, "plain")])
        await app.drain()
        states = {task_id: (await app.status(task_id)).state for task_id in ("good", "forged", "plain")}
    assert states == {"good": TaskState.SUCCEEDED, "forged": TaskState.FAILED, "plain": TaskState.FAILED}


def made_by_hand(app, task_id):
    """An envelope for the job, made past the producer."""

    return Envelope(
        v=WIRE_VERSION,
        id=task_id,
        name="job",
        queue="jobs",
        created_at=app.stem.clock.now(),
        args=msgspec.Raw(b'{"number":1}'),
    )
