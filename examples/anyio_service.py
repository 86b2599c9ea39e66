"""An anyio service that enqueues, on either backend: one request is one line of JSON over TCP, and so is its answer.

STEM_BROKER_URL=redis://localhost:6379/0 python examples/anyio_service.py asyncio 8000
echo '{"to": "ada@example.com"}' | nc localhost 8000
"""

import json
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager

import anyio
import sniffio
from anyio.abc import SocketStream, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream

from stem_trio import ArgumentsError, AsyncioStem, StemClient, StoreUnavailableError, TaskContext, task


@task(name="email.send", max_retries=3)
async def send_email(context: TaskContext, to: str, subject: str = "Hi") -> int:
    print(f"Sending {subject!r} to {to}")
    return len(subject)


def open_stem() -> AbstractAsyncContextManager[StemClient | AsyncioStem]:
    """The same calls on both backends."""
    url = os.environ.get("STEM_BROKER_URL", "redis://localhost:6379/0")
    host = StemClient if sniffio.current_async_library() == "trio" else AsyncioStem
    return host.from_url(url, tasks=[send_email])


async def answer(stem: StemClient | AsyncioStem, line: bytes) -> dict[str, object]:
    try:
        match json.loads(line):
            case {"status": str(task_id)}:
                status = await stem.status(task_id)
                return {"id": task_id, "state": status.state.value if status is not None else None}
            case arguments:
                return {"id": await stem.enqueue("email.send", args=arguments)}
    except ArgumentsError as error:  # refused before anything has reached the queue
        return {"error": str(error), "argument": error.argument}
    except StoreUnavailableError:
        return {"error": "try again later"}
    except ValueError as error:
        return {"error": f"not JSON: {error}"}


async def stop_on_signal(group: TaskGroup) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            group.cancel_scope.cancel()


async def main(port: int) -> None:
    async with open_stem() as stem:

        async def serve(client: SocketStream) -> None:
            async with client:
                lines = BufferedByteReceiveStream(client)
                try:
                    while True:
                        line = await lines.receive_until(b"\n", 65536)
                        await client.send(json.dumps(await answer(stem, line)).encode() + b"\n")
                except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
                    return

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
        async with anyio.create_task_group() as group, listener:
            group.start_soon(stop_on_signal, group)
            await listener.serve(serve)


if __name__ == "__main__":
    backend, port = sys.argv[1:]
    anyio.run(main, int(port), backend=backend)
