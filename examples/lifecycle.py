"""How a worker is shut down: warm, soft and hard.

python examples/lifecycle.py
"""

import trio

from stem_trio import InMemoryBroker, InMemoryResultBackend, Stem, TaskContext, Worker, WorkerLifecycleConfig, task


@task(name="lifecycle.quick")
async def quick() -> str:
    await trio.sleep(0.2)
    return "finished in time"


@task(name="lifecycle.polite")
async def polite(context: TaskContext) -> str:
    await context.cancelled.wait()  # set by a soft shutdown
    return "stopped when asked"


@task(name="lifecycle.endless")
async def endless() -> None:
    await trio.sleep_forever()


async def run_and_stop(stem, broker, backend, some_task, mode):
    lifecycle = WorkerLifecycleConfig(soft_grace_period=0.5, force_shutdown_after=10)
    async with trio.open_nursery() as nursery:
        worker = Worker(broker, backend, registry=stem.registry, lifecycle=lifecycle)
        await worker.start(nursery)
        handle = await some_task.enqueue(stem)
        while (await handle.status()).state.value != "running":
            await trio.sleep(0.01)
        await worker.shutdown(mode=mode)
        status = await handle.status()
        value = status.value and bytes(status.value).decode()
        print(f"{mode}: {handle.name} is {status.state.value}, attempt {status.attempt}, returned {value}")


async def main():
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend:
        stem = Stem(broker, backend, tasks=[quick, polite, endless])
        await run_and_stop(stem, broker, backend, quick, "warm")  # may end by itself
        await run_and_stop(stem, broker, backend, polite, "soft")  # is asked to
        await run_and_stop(stem, broker, backend, endless, "hard")  # is cancelled, and given back at no cost
        print(await broker.stats("default"))


if __name__ == "__main__":
    trio.run(main)
