"""Enqueue a report through Redis; a worker in another process makes it, see redis_worker.py.

python examples/redis_producer.py
"""

import os

import trio

from stem_trio import FunctionTaskHandler, StemClient, StemStoreOverrides, TaskOptions


async def generate(context, args):
    print(f"Report {args['report_id']}")
    await context.enqueue("email.send", args={"to": "ada@example.com"})


report = FunctionTaskHandler(name="report.generate", entrypoint=generate)


async def main():
    async with StemClient.from_url(
        os.environ.get("STEM_BROKER_URL", "redis://localhost:6379/0"),
        overrides=StemStoreOverrides(backend=os.environ.get("STEM_RESULT_BACKEND_URL", "redis://localhost:6379/1")),
        tasks=[report],
    ) as client:
        task_id = await client.enqueue(
            "report.generate", args={"report_id": "monthly-2025-10"}, options=TaskOptions(queue="reports")
        )
        status = await client.status(task_id)
        print(f"{task_id} is {status.state.value}")


if __name__ == "__main__":
    trio.run(main)
