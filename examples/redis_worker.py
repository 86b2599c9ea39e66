"""A worker on Redis, for what redis_producer.py enqueues. It ends in good order on SIGTERM or Ctrl-C.

python examples/redis_worker.py
"""

import os
from collections.abc import Mapping
from typing import Any

import trio

from stem_trio import RedisResultBackend, RedisStreamsBroker, TaskContext, TaskHandler, TaskOptions, Worker


class RedisEmailTask(TaskHandler[None]):
    name = "email.send"
    options = TaskOptions(queue="default", max_retries=3, visibility_timeout=30)

    async def call(self, context: TaskContext, args: Mapping[str, Any]) -> None:
        print(f"Sending to {args['to']} (attempt {context.attempt})")


async def main():
    url = os.environ.get("STEM_BROKER_URL", "redis://localhost:6379/0")
    async with RedisStreamsBroker.connect(url) as broker, RedisResultBackend.connect(url, db=1) as backend:
        worker = Worker(
            broker=broker,
            backend=backend,
            tasks=[RedisEmailTask(), "redis_producer:report"],  # a task can be named by where it is written
            queues=["default", "reports"],
            concurrency=64,
        )
        await worker.run()  # handles SIGTERM, SIGINT and SIGQUIT; returns after the shutdown
        print("all done")


if __name__ == "__main__":
    trio.run(main)
