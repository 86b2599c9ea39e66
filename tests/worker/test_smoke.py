"""The harness itself: an hour of backoff takes no time."""

from __future__ import annotations

from stem_trio import ExponentialJitterRetryStrategy, TaskContext, TaskState, task


@task(max_retries=3)
async def flaky(context: TaskContext, to: str) -> str:
    if context.attempt < 3:
        raise ConnectionError("not yet")
    return to


async def test_an_hour_of_backoff(stem_app, autojump_clock):
    """An hour of backoff passes in milliseconds, and the enqueued task is on record."""
    app = await stem_app(tasks=[flaky], retry_strategy=ExponentialJitterRetryStrategy(base=600))
    handle = await flaky.enqueue(app, to="a@b.c")
    await app.drain()
    assert (await handle.status()).state is TaskState.SUCCEEDED
    assert app.enqueued(flaky, to="a@b.c")
    assert not app.enqueued(flaky, to="x")
