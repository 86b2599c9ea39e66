"""Producer and worker of one service, in one object that shares one store.

python examples/combined_runtime.py
"""

from contextlib import AsyncExitStack

import trio

from stem_trio import InMemoryBroker, InMemoryResultBackend, Stem, TaskContext, Worker, task


@task(name="audit.write")
async def write_audit(context: TaskContext, action: str) -> str:
    return f"{action} by task {context.name}"


class StemRuntime:
    """Producer and worker of one service, sharing one store."""

    def __init__(self, tasks):
        self._stores = AsyncExitStack()
        self.broker = InMemoryBroker()
        self.backend = InMemoryResultBackend()
        self.stem = Stem(self.broker, self.backend, tasks=tasks)
        self.worker = Worker(self.broker, self.backend, tasks=tasks, concurrency=8)

    async def start(self, nursery):
        """Open the stores, and run the worker in the service's nursery."""
        await self._stores.enter_async_context(self.broker)
        await self._stores.enter_async_context(self.backend)
        await self.worker.start(nursery)

    async def stop(self):
        """Let running tasks end, then close the stores."""
        await self.worker.shutdown()
        await self._stores.aclose()


async def main():
    runtime = StemRuntime([write_audit])
    async with trio.open_nursery() as nursery:  # the service's own, with its other work in it
        await runtime.start(nursery)
        handle = await write_audit.enqueue(runtime.stem, "login")
        print(await handle.result(timeout=5))
        await runtime.stop()


if __name__ == "__main__":
    trio.run(main)
