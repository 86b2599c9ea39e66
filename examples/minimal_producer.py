"""Everything in one process: a producer, a worker, and stores in memory.

python examples/minimal_producer.py
"""

import trio

from stem_trio import FunctionTaskHandler, StemApp, TaskState


async def send_email(context, args):
    print(f"Sending to {args.get('to', 'friend')}")


async def main():
    async with StemApp.in_memory(tasks=[FunctionTaskHandler(name="email.send", entrypoint=send_email)]) as app:
        task_id = await app.enqueue("email.send", args={"to": "hello@example.com", "subject": "Welcome"})
        result = await app.wait_for_task(task_id, timeout=5)
        assert result.state is TaskState.SUCCEEDED


if __name__ == "__main__":
    trio.run(main)
