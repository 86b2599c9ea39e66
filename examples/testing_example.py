"""A test of a program's own tasks: an hour of backoff in milliseconds, on the fixtures of the pytest plugin.

python -m pytest examples/testing_example.py
"""

from stem_trio import ExponentialJitterRetryStrategy, TaskContext, TaskState, task


@task(name="flaky", max_retries=3)
async def flaky(context: TaskContext, to: str) -> None:
    if context.attempt < 3:
        raise ConnectionError("the mail server is away")


async def test_an_hour_of_backoff(stem_app, autojump_clock):  # fixture from the pytest plugin
    app = await stem_app(tasks=[flaky], retry_strategy=ExponentialJitterRetryStrategy(base=600))
    handle = await flaky.enqueue(app, to="a@b.c")
    await app.drain()  # until nothing is ready, delayed or running
    assert (await handle.status()).state is TaskState.SUCCEEDED
    assert app.enqueued(flaky, to="a@b.c")
