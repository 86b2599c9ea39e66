"""Tasks that outlive the program: what one run leaves in a file, the next one finishes.

python examples/durable_app.py; python examples/durable_app.py
"""

import trio

from stem_trio import StemApp, task


@task(name="report.build")
async def build_report(month: str) -> str:
    return f"report of {month}"


async def main():
    async with StemApp.from_url("sqlite:///durable_app.db", tasks=[build_report]) as app:
        # Under an id of our own the second run enqueues nothing: its handle stands for the task that is there.
        handle = await build_report.with_options(task_id="report-2026-11", delay=1).enqueue(app, "November")
        if handle.created:
            print("enqueued: run me again to see it done")
        else:
            print(await handle.result(timeout=10))


if __name__ == "__main__":
    trio.run(main)
