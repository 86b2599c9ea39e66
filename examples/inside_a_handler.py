"""What a handler may ask of its context.

python examples/inside_a_handler.py
"""

import trio

from stem_trio import SoftTimeLimitError, StemApp, TaskContext, task


@task(name="index.page")
async def index_page(number: int) -> int:
    return number


@task(name="index.site", max_retries=1, soft_time_limit=0.2, hard_time_limit=5)
async def index_site(context: TaskContext, pages: int) -> str:
    if context.attempt == 0:
        context.retry(after=0.05, reason="the site asks to come back later")  # raises

    context.logger.info("indexing %d pages", pages)  # with id, name, attempt, queue and worker on the record
    for number in range(pages):
        await index_page.enqueue(context, number)  # a child: it carries this task's id, and the trace headers
        await context.progress(100 * (number + 1) / pages, {"page": number})  # readable from anywhere
    await context.heartbeat()  # renews the lease now; the worker also does so by itself

    try:
        with context.raise_at_soft_limit():
            await trio.sleep_forever()
    except SoftTimeLimitError:
        return f"{pages} pages, cut short; {context.meta['who']} may go on tomorrow"
    return "everything"


async def main():
    async with StemApp.in_memory(tasks=[index_page, index_site]) as app:
        call = index_site.with_options(meta={"who": "ada"}, headers={"traceparent": "00-1-2-01"})
        handle = await call.enqueue(app, 3)
        while (status := await handle.status()).progress is None:
            await trio.sleep(0.01)
        print(f"{status.state.value}: {status.progress.percent:.0f} %")
        print(await handle.result(timeout=10))
        await app.drain()
        print(app.worker.totals["succeeded"], "tasks succeeded")


if __name__ == "__main__":
    trio.run(main)
