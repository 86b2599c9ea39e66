"""What a worker on Redis has in memory: not redis-py, nor the event loop that comes with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

WORKER = """
import sys

import trio

from stem_trio import StemClient, Worker, task
from stem_trio.stores.redis import RedisBroker, RedisResultBackend


@task(name="imports.double")
async def double(number: int) -> int:
    return number * 2


async def main(url: str, prefix: str) -> None:
    with trio.fail_after(30):
        async with (
            StemClient(
                RedisBroker.connect(url, prefix=prefix), RedisResultBackend.connect(url, prefix=prefix), tasks=[double]
            ) as client,
            trio.open_nursery() as nursery,
        ):
            worker = Worker(client.broker, client.backend, tasks=[double])
            await worker.start(nursery)
            handle = await double.enqueue(client, 21)
            print(await handle.result(timeout=20))
            await worker.shutdown()


trio.run(main, *sys.argv[1:])
for name in UNWANTED:
    assert name not in sys.modules, name
"""
UNWANTED = (
    "asyncio",
    "difflib",
    "email",
    "importlib.metadata",
    "redis",
    "stem_trio.config",
    "stem_trio.stores.memory",
    "stem_trio.testing",
)


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_worker_imports_no_other_client(redis_url, prefix):
    """A worker that has run a task has imported neither redis-py nor asyncio, nor other things that it does not use."""
    assert run(f"UNWANTED = {UNWANTED!r}\n{WORKER}", redis_url, prefix) == "42\n"


@pytest.mark.parametrize("module", ["stem_trio", "stem_trio.stores.redis"])
def test_import(module):
    """The modules alone import none of it either."""
    run(f"import sys, {module}\nfor name in {UNWANTED!r}: assert name not in sys.modules, name")


def test_commands_bring_redis_py():
    """`RedisCommands` is there when it is asked for, and a wrong name is a wrong name."""
    run(
        "import sys\n"
        "from stem_trio.stores import redis\n"
        "assert 'redis' not in sys.modules\n"
        "from stem_trio.stores.redis import RedisCommands\n"
        "assert redis.RedisCommands is RedisCommands and 'redis' in sys.modules\n"
        "try:\n"
        "    redis.RedisComands\n"
        "except AttributeError as error:\n"
        "    assert str(error) == \"module 'stem_trio.stores.redis' has no attribute 'RedisComands'\"\n"
        "else:\n"
        "    raise AssertionError\n"
    )
