"""A worker in a nursery of the program's own, and a task written as a class.

python examples/minimal_worker.py
"""

from collections.abc import Mapping
from typing import Any

import trio

from stem_trio import InMemoryBroker, InMemoryResultBackend, Stem, TaskContext, TaskHandler, TaskOptions, Worker


class EmailTask(TaskHandler[None]):
    name = "email.send"
    options = TaskOptions(max_retries=2)

    async def call(self, context: TaskContext, args: Mapping[str, Any]) -> None:
        print(f"Sending to {args['to']} (attempt {context.attempt})")  # attempt is 0-based


async def main():
    email = EmailTask()  # one list of tasks, for producer and worker alike
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend, trio.open_nursery() as nursery:
        worker = Worker(broker=broker, backend=backend, tasks=[email], queue="default")
        await worker.start(nursery)  # returns when ready; `await nursery.start(worker.run)` is the same

        stem = Stem(broker, backend, tasks=[email])
        task_id = await stem.enqueue("email.send", args={"to": "ada@example.com"})
        result = await stem.wait_for_task(task_id, timeout=5)
        print(result.state.value)

        await worker.shutdown()  # warm, bounded


if __name__ == "__main__":
    trio.run(main)
