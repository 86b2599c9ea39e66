"""A signature survives everything that a server does with a task."""

from __future__ import annotations

import pytest
import trio

from stem_trio import (
    FixedRetryStrategy,
    PayloadSigner,
    RedisBroker,
    RedisResultBackend,
    SigningKey,
    Stem,
    StemSignals,
    TaskContext,
    TaskState,
    Worker,
    task,
)
from stem_trio.envelope import WIRE_VERSION, Envelope

PRIVATE = SigningKey.ed25519("e1", bytes(range(32)))
PRODUCER = PayloadSigner([PRIVATE])
VERIFIER = PayloadSigner([SigningKey.ed25519_public("e1", PRIVATE.public)], max_age=60)


@pytest.fixture
async def stores(redis_url, prefix):
    """Stores on the server."""
    async with (
        RedisBroker.connect(redis_url, prefix=prefix) as broker,
        RedisResultBackend.connect(redis_url, prefix=prefix) as backend,
    ):
        yield broker, backend


@task(name="hard", max_retries=1, visibility_timeout=0.3)
async def hard(context: TaskContext) -> int:
    """Is retried, given back, ends as a dead letter, and outlives its lease at last."""
    if context.deliveries == 2:
        await trio.sleep_forever()
    if context.deliveries < 4:
        raise ConnectionError
    await trio.sleep(0.7)
    return context.deliveries


async def test_all_that_happens_to_a_task(stores):
    """G16: retry, release, dead letter, replay and renewals on a server; nobody but the producer can sign."""
    broker, backend = stores
    stem = Stem(broker, backend, signals=StemSignals(), signer=PRODUCER)

    def worker() -> Worker:
        signals, strategy = StemSignals(), FixedRetryStrategy(0)
        return Worker(broker, backend, tasks=[hard], signals=signals, retry_strategy=strategy, signer=VERIFIER)

    with trio.fail_after(30):
        handle = await hard.enqueue(stem)
        async with backend.watch(handle.id) as watch, worker() as first:
            while (status := await watch.changed()).deliveries < 2 or status.state is not TaskState.RUNNING:
                pass
            await first.shutdown(mode="hard")
        assert first.totals["released"] == 1
        async with worker():
            result = await handle.wait()
            assert (result.state, result.reason) == (TaskState.FAILED, "max-retries-exhausted")
            assert (await stem.replay_dead_letters("default", [handle.id]))[0] is not None
            async with backend.watch(handle.id) as watch:
                status = await handle.status()
                while status.state is not TaskState.SUCCEEDED:
                    status = await watch.changed()
        assert await handle.result() == 4


async def test_forged_on_the_server(stores):
    """G16: a task that is published without the key, or altered on its way, is refused."""
    broker, backend = stores
    plain = Stem(broker, backend, signals=StemSignals())
    with trio.fail_after(30):
        handle = await hard.enqueue(plain)
        async with Worker(broker, backend, tasks=[hard], signals=StemSignals(), signer=VERIFIER):
            result = await handle.wait()
    assert (result.state, result.reason) == (TaskState.FAILED, "signature-invalid")
    letter = await broker.get_dead_letter("default", handle.id)
    assert letter.reason == "signature-invalid"


@pytest.mark.parametrize("forged", [{"result_ttl": 1e300}, {"result_ttl": -1.0}, {"priority": 99}, {"max_strikes": -1}])
async def test_numbers_that_no_producer_writes(stores, forged):
    """G16: what a forged task says of its retention and limits does not take the worker down that refuses it."""
    broker, backend = stores
    envelope = Envelope(v=WIRE_VERSION, id="forged", name="hard", queue="default", created_at=1.0, **forged)
    refused = trio.Event()
    signals = StemSignals()
    signals.task_dead_lettered.connect(lambda event: refused.set())
    with trio.fail_after(30):
        await broker.publish([envelope])
        async with Worker(broker, backend, tasks=[hard], signals=signals, signer=VERIFIER):
            await refused.wait()
    assert (await broker.get_dead_letter("default", "forged")).reason == "signature-invalid"
