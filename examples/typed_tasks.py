"""Functions as tasks: checked arguments, known results, options for single calls, many at once.

python examples/typed_tasks.py
"""

from pathlib import Path

import trio

from stem_trio import ArgumentsError, StemApp, TaskContext, TaskFailedError, task


@task(name="email.send", queue="mail", max_retries=3)
async def send_email(context: TaskContext, to: str, subject: str = "Hi") -> int:
    print(f"Sending {subject!r} to {to}")
    return len(subject)


@task  # sync functions run in a thread; the name defaults to "module:qualname"
def resize(path: Path, width: int) -> str:
    return f"{path.stem}-{width}{path.suffix}"


@task(name="report.fail")
async def fail() -> None:
    raise ValueError("no data for this month")


async def main():
    async with StemApp.in_memory(tasks=[send_email, resize, fail]) as app:
        # Arguments are checked by the type checker, and again before anything is written.
        handle = await send_email.enqueue(app, to="a@b.c")
        n: int = await handle.result(timeout=10)
        print(n)

        handle = await send_email.with_options(delay=0.1, priority=9).enqueue(app, "d@e.f", subject="Later")
        print(await handle.result(timeout=10))

        print(await (await resize.enqueue(app, Path("photos/cat.png"), 640)).result(timeout=10))

        addresses = ["x@y.z", "u@v.w"]
        ids = await app.enqueue_many([send_email.bind(to=address) for address in addresses])  # one round trip
        for task_id in ids:
            print((await app.wait_for_task(task_id, timeout=10)).state.value)

        try:
            await send_email.enqueue(app, 42)  # type: ignore[arg-type]  # what a type checker would refuse
        except ArgumentsError as error:
            print(f"refused: {error.argument}")

        try:
            await (await fail.enqueue(app)).result(timeout=10)
        except TaskFailedError as error:
            print(error.error.message)


if __name__ == "__main__":
    trio.run(main)
