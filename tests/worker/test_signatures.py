"""Workers that verify: what is refused and how that is told, and what keeps a signature valid."""

from __future__ import annotations

import logging

import msgspec
import pytest
import trio

from stem_trio import (
    FixedRetryStrategy,
    PayloadSigner,
    SigningKey,
    Stem,
    StemSignals,
    TaskContext,
    TaskState,
    Worker,
    task,
)
from stem_trio.envelope import WIRE_VERSION, Envelope
from stem_trio.settlement import submitted_status
from stem_trio.testing.faults import Faults, FaultyBroker
from tests.worker.test_run import DEAD, GONE, only

SECRET = bytes(range(32))
K1 = SigningKey.hmac_sha256("k1", SECRET)
K2 = SigningKey.hmac_sha256("k2", bytes(range(1, 33)))
PRIVATE = SigningKey.ed25519("e1", bytes(range(2, 34)))
PUBLIC = SigningKey.ed25519_public("e1", PRIVATE.public)


def signer(*keys, **options) -> PayloadSigner:
    return PayloadSigner(keys or [K1], **options)


@pytest.fixture
def producer(rig):
    """Makes producers that sign, over the stores of the rig."""

    def make(*keys, **options) -> Stem:
        return Stem(rig.broker, rig.backend, signals=StemSignals(), clock=rig.clock, signer=signer(*keys, **options))

    return make


@task(name="job")
async def job(number: int) -> int:
    return number


def make_envelope(rig, **fields) -> Envelope:
    """An envelope as it is made by hand; its arguments do not fit the task."""
    fields = {
        "v": WIRE_VERSION,
        "id": "forged",
        "name": "job",
        "queue": "default",
        "created_at": rig.clock.now(),
        "args": msgspec.Raw(b'{"payload":"telltale"}'),
    } | fields
    return Envelope(**fields)


async def put(rig, *envelopes) -> None:
    """Put envelopes into the broker by hand, with a status to wait for."""
    await rig.backend.record([submitted_status(one, now=rig.clock.now(), delay=0.0) for one in envelopes])
    await rig.broker.publish(envelopes)


async def ended(rig, task_id) -> TaskState:
    return (await rig.stem.wait_for_task(str(task_id), timeout=600)).state


async def until(rig, handle, state: TaskState) -> None:
    """Wait until a task is in a state, whichever it was in before."""
    with trio.fail_after(3600):
        async with rig.backend.watch(str(handle)) as watch:
            status = await rig.status(handle)
            while status.state is not state:
                status = await watch.changed()


# --- what is refused ----------------------------------------------------------------------------------------------


def unsigned(envelope):
    return envelope


def stranger(envelope):
    return signer(SigningKey.hmac_sha256("stranger", SECRET)).sign(envelope)


def other_secret(envelope):
    return signer(SigningKey.hmac_sha256("k1", bytes(range(9, 41)))).sign(envelope)


def other_algorithm(envelope):
    return signer(SigningKey.ed25519("k1", SECRET)).sign(envelope)


def changed(envelope):
    signed = signer().sign(msgspec.structs.replace(envelope, max_retries=5))
    return msgspec.structs.replace(signed, max_retries=6)


def of_another_task(envelope):
    other = signer().sign(msgspec.structs.replace(envelope, id="other"))
    return msgspec.structs.replace(envelope, signature=other.signature)


FORGERIES = [unsigned, stranger, other_secret, other_algorithm, changed, of_another_task]


@pytest.mark.parametrize("forge", FORGERIES)
async def test_refused(rig, forge, autojump_clock, caplog):
    """G16, G8: a bad signature ends as a dead letter, with status, signals and log; the handler does not see it."""
    caplog.set_level(logging.DEBUG)
    rig.listen()
    rig.listen("task_received", "task_prerun")
    await put(rig, forge(make_envelope(rig)))
    async with rig.worker(job, signer=signer()) as worker:
        result = await rig.stem.wait_for_task("forged", timeout=600)
    # Its arguments do not fit either; nobody has looked at them.
    assert (result.state, result.reason) == (TaskState.FAILED, "signature-invalid")
    assert result.error.type == "stem_trio.errors.SignatureInvalidError"
    assert result.error.retryable is False
    letter = await rig.dead_letter("forged")
    assert (letter.reason, letter.attempt, letter.strikes) == ("signature-invalid", 0, 0)
    assert (await rig.status("forged")).started_at is None
    assert await rig.places() == DEAD
    assert worker.totals == only(failed=1)
    assert rig.heard == ["task_failed", "task_dead_lettered"]
    assert rig.event("task_dead_lettered").reason == "signature-invalid"
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "'forged'" in warning.getMessage()
    told = caplog.text + repr(result) + letter.detail
    assert "telltale" not in told
    assert repr(SECRET)[2:-1] not in told


async def test_refused_before_anything_is_believed(rig, autojump_clock):
    """G16: what a forged envelope says of its expiry, its strikes or its name decides nothing."""
    forged = [
        make_envelope(rig, id="expired", expires_at=1.0),
        make_envelope(rig, id="poison", max_strikes=0),
        make_envelope(rig, id="unknown", name="unknown"),
    ]
    await put(rig, *forged)
    async with rig.worker(job, signer=signer()):
        for envelope in forged:
            result = await rig.stem.wait_for_task(envelope.id, timeout=600)
            assert (result.state, result.reason) == (TaskState.FAILED, "signature-invalid")


async def test_revoked_beats_unsigned(rig, autojump_clock):
    """A revocation is the broker's word: what was withdrawn is gone, and no dead letter."""
    await put(rig, make_envelope(rig))
    await rig.broker.revoke("default", ["forged"])
    async with rig.worker(job, signer=signer()):
        assert await ended(rig, "forged") is TaskState.REVOKED
    assert await rig.places() == GONE


async def test_moved_to_another_queue(rig, autojump_clock):
    """G16: a signed task is not run from another queue than its own, before workers that it was not meant for."""
    moved = signer().sign(make_envelope(rig, queue="harmless", args=msgspec.Raw(b'{"number":1}')))
    await put(rig, moved)
    broker = MovingBroker(rig.broker)
    async with Worker(
        broker, rig.backend, tasks=[job], queue="dangerous", signer=signer(), signals=rig.signals, clock=rig.clock
    ) as worker:
        assert await ended(rig, "forged") is TaskState.FAILED
    assert (await rig.status("forged")).reason == "signature-invalid"
    assert worker.totals["succeeded"] == 0


class MovingBroker(FaultyBroker):
    """Hands tasks of one queue out as those of another one."""

    def __init__(self, broker) -> None:
        super().__init__(broker, Faults())

    async def claim(self, queues, **options):
        replace = msgspec.structs.replace
        found = await super().claim(["harmless"], **options)
        return [replace(one, lease=replace(one.lease, queue="dangerous")) for one in found]


async def test_optional(rig, producer, autojump_clock):
    """G16: where signatures are not required, unsigned tasks run, and wrong ones do not."""
    handle = await rig.enqueue(job, 1)
    good = await job.enqueue(producer(), 2)
    await put(rig, changed(make_envelope(rig)))
    async with rig.worker(job, signer=signer(required=False)):
        assert await handle.result(timeout=600) == 1
        assert await good.result(timeout=600) == 2
        assert await ended(rig, "forged") is TaskState.FAILED
    assert (await rig.dead_letter("forged")).reason == "signature-invalid"


async def test_worker_without_signer(rig, producer, autojump_clock):
    """A worker that has no keys runs what is signed, whoever signed it."""
    handle = await job.enqueue(producer(K2), 3)
    async with rig.worker(job):
        assert await handle.result(timeout=600) == 3


async def test_public_key_suffices(rig, producer, autojump_clock):
    """G16: a worker with public keys verifies, and cannot enqueue."""

    @task(name="parent")
    async def parent(context: TaskContext) -> str:
        return await context.enqueue("job", {"number": 1})

    stem = producer(PRIVATE)
    handle = await parent.enqueue(stem)
    async with rig.worker(parent, job, signer=signer(PUBLIC)):
        result = await rig.stem.wait_for_task(handle.id, timeout=600)
    assert result.error.type == "stem_trio.errors.SigningError"
    assert await rig.places() == DEAD  # the parent; there is no child


async def test_children_are_signed(rig, producer, autojump_clock):
    """G16: what a handler enqueues is signed by the worker, with lineage and delay."""

    @task(name="parent")
    async def parent(context: TaskContext) -> str:
        return await context.enqueue("job", {"number": 7}, delay=100)

    handle = await parent.enqueue(producer())
    async with rig.worker(parent, job, signer=signer(K2, K1, active="k2", max_age=10)):
        child = await handle.result(timeout=600)
        [waiting] = await rig.broker.peek("default")
        assert (await rig.stem.wait_for_task(child, timeout=600)).value == 7
    signature = waiting.envelope.signature
    assert (signature.key, signature.due_at) == ("k2", waiting.envelope.created_at + 100)


# --- what keeps it valid ------------------------------------------------------------------------------------------


async def test_retries(rig, producer, autojump_clock):
    """G16: retries need no new signature, however many and however late."""

    @task(name="flaky", max_retries=3)
    async def flaky(context: TaskContext) -> int:
        if context.attempt < 3:
            raise ConnectionError
        return context.attempt

    handle = await flaky.enqueue(producer())
    strategy = FixedRetryStrategy(3600)
    async with rig.worker(flaky, signer=signer(max_age=60), retry_strategy=strategy):
        assert await handle.result(timeout=86_400) == 3


async def test_release_at_shutdown(rig, producer, autojump_clock):
    """G16: what a shutdown gives back runs elsewhere, though its first worker could not have signed it again."""
    started = trio.Event()

    @task(name="long")
    async def long(context: TaskContext) -> int:
        started.set()
        if context.deliveries == 1:
            await trio.sleep_forever()
        return context.deliveries

    handle = await long.enqueue(producer(PRIVATE))
    async with rig.worker(long, signer=signer(PUBLIC)) as worker:
        await started.wait()
        await worker.shutdown(mode="hard")
    assert worker.totals["released"] == 1
    async with rig.worker(long, signer=signer(PUBLIC)):
        assert await handle.result(timeout=600) == 2


async def test_replay(rig, producer, autojump_clock):
    """G16: a dead letter that is replayed by somebody without keys is valid still."""
    broken = True

    @task(name="boom")
    async def boom() -> str:
        if broken:
            raise ValueError
        return "mended"

    handle = await boom.enqueue(producer())
    async with rig.worker(boom, signer=signer(max_age=60)):
        assert await ended(rig, handle) is TaskState.FAILED
        broken = False
        await trio.sleep(3600)
        [letter] = await rig.stem.replay_dead_letters("default", [handle.id], delay=100)
        assert letter is not None
        await until(rig, handle, TaskState.SUCCEEDED)
    assert await handle.result(timeout=1) == "mended"


async def test_renewals(rig, producer, autojump_clock):
    """G16: renewing a lease leaves the signature alone, and a task whose lease was lost is valid at the next worker."""

    @task(name="slow", visibility_timeout=10)
    async def slow(context: TaskContext) -> int:
        await trio.sleep(100)
        return context.deliveries

    handle = await slow.enqueue(producer())
    faults, lost = Faults(), trio.Event()
    rig.signals.task_lease_lost.connect(lambda event: lost.set())
    async with rig.worker(slow, signer=signer(max_age=60), faults=faults) as first:
        await trio.sleep(35)
        assert (first.in_flight, first.totals["lease_lost"]) == (1, 0)  # renewed more than three times
        faults.fail("broker.renew")
        with trio.fail_after(60):
            await lost.wait()
        await first.shutdown(mode="hard")
    async with rig.worker(slow, signer=signer(max_age=60)):
        assert await handle.result(timeout=600) >= 2


# --- how old it may be --------------------------------------------------------------------------------------------


async def test_too_late(rig, producer, autojump_clock):
    """G16: a task that is handed out first when it is too old is refused; replayed by an operator, it runs."""
    handle = await job.enqueue(producer(), 1)
    await trio.sleep(61)
    async with rig.worker(job, signer=signer(max_age=60)):
        assert await ended(rig, handle) is TaskState.FAILED
        assert "61 s after it was due" in (await rig.dead_letter(handle)).detail
        await rig.stem.replay_dead_letters("default", [handle.id])
        await until(rig, handle, TaskState.SUCCEEDED)


async def test_delayed(rig, producer, autojump_clock):
    """G16: a delay does not count as age."""
    handle = await job.with_options(delay=3600).enqueue(producer(), 1)
    async with rig.worker(job, signer=signer(max_age=60)):
        assert await handle.result(timeout=7200) == 1


async def test_put_in_again(rig, producer, autojump_clock):
    """G16: a signed task that somebody has kept, and puts in again later, is refused."""
    handle = await job.enqueue(producer(), 1)
    [waiting] = await rig.broker.peek("default")
    refused = trio.Event()
    rig.signals.task_dead_lettered.connect(lambda event: refused.set())
    async with rig.worker(job, signer=signer(max_age=60)) as worker:
        assert await handle.result(timeout=600) == 1
        await trio.sleep(61)
        assert await rig.broker.publish([waiting.envelope]) == [True]
        with trio.fail_after(600):
            await refused.wait()
    assert worker.totals == only(succeeded=1, failed=1)


# --- rotation -----------------------------------------------------------------------------------------------------


async def test_rotation_workers_first(rig, producer, autojump_clock):
    """G16: workers learn the new key, producers switch, the old one is taken away: nothing is refused."""
    values = []
    for producers, workers in (
        ([K1], signer(K1)),
        ([K1], signer(K1, K2, active="k1")),
        ([K2, K1], signer(K1, K2, active="k1")),
        ([K2, K1], signer(K1, K2, active="k2")),
        ([K2], signer(K2)),
    ):
        handle = await job.enqueue(producer(*producers, active=producers[0].id), len(values))
        async with rig.worker(job, signer=workers):
            values.append(await handle.result(timeout=600))
    assert values == [0, 1, 2, 3, 4]
    assert await rig.places() == GONE


async def test_rotation_with_tasks_under_way(rig, producer, autojump_clock):
    """G16: tasks of the old key that wait or are retried run during the overlap."""

    @task(name="flaky", max_retries=1)
    async def flaky(context: TaskContext) -> int:
        if not context.attempt:
            raise ConnectionError
        return context.attempt

    strategy = FixedRetryStrategy(600)
    retried = await flaky.enqueue(producer(K1))
    delayed = await job.with_options(delay=600).enqueue(producer(K1), 1)
    async with rig.worker(flaky, job, signer=signer(K1), retry_strategy=strategy):
        await until(rig, retried, TaskState.RETRYING)
    async with rig.worker(flaky, job, signer=signer(K1, K2, active="k2")):
        assert await retried.result(timeout=3600) == 1
        assert await delayed.result(timeout=3600) == 1


async def test_rotation_producers_first(rig, producer, autojump_clock):
    """G16: in the other order tasks are refused until workers know the key, and none of them is lost."""
    handle = await job.enqueue(producer(K2), 1)
    async with rig.worker(job, signer=signer(K1)):
        assert await ended(rig, handle) is TaskState.FAILED
    assert (await rig.dead_letter(handle)).reason == "signature-invalid"
    async with rig.worker(job, signer=signer(K1, K2, active="k1")):
        await rig.stem.replay_dead_letters("default", [handle.id])
        await until(rig, handle, TaskState.SUCCEEDED)
    assert await rig.places() == GONE
