"""Programs that other processes run in these tests: ``python -m tests.sqlite.programs NAME FILE [MORE]``."""

from __future__ import annotations

import os
import sqlite3
import sys

import trio

from stem_trio.outcome import Complete
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend
from stem_trio.stores.sqlite.schema import load_migrations
from stem_trio.testing.contracts import make_envelope, make_status


def say(*words):
    print(*words, flush=True)


async def publish(file, count):
    """Publish so many tasks, a line of input each, and say when each is there."""
    async with SqliteBroker.open(file) as broker:
        say("ready")
        for _ in range(int(count)):
            await trio.to_thread.run_sync(sys.stdin.readline)
            await broker.publish([make_envelope(queue="q")])
            say("published")


async def work(file, _):
    """Claim and complete until there is nothing left, in the gate either; say what."""
    options = {"synchronous": "OFF"}
    async with SqliteBroker.open(file, **options) as broker, SqliteResultBackend.open(file, **options) as backend:
        say("ready")
        while (await broker.stats("q")).unfinished or (await broker.stats("gate")).ready:
            for delivery in await broker.claim(["q"], consumer=f"w-{sys.argv[0]}", limit=7, wait=0.1):
                task_id = delivery.envelope.id
                await backend.record([make_status(task_id, reason=str(delivery.deliveries))])
                assert await broker.settle([(delivery.lease, Complete())]) == [True]
                say(task_id)


async def record(file, task_id):
    """Record a status and broadcast a message at each line of input."""
    async with SqliteBroker.open(file) as broker, SqliteResultBackend.open(file) as backend:
        say("ready")
        for number in range(1, 4):
            await trio.to_thread.run_sync(sys.stdin.readline)
            await backend.record([make_status(task_id, deliveries=number)])
            await broker.broadcast("c", str(number).encode())


async def claim_and_hang(file, _):
    """Claim one task, wait for more, and never end."""
    async with SqliteBroker.open(file) as broker:
        (delivery,) = await broker.claim(["q"], consumer="w", limit=1, wait=5)
        say(delivery.envelope.id)
        await broker.claim(["nothing"], consumer="w", limit=1, wait=0.01)
        say("waiting")
        await trio.sleep_forever()


async def enqueue_for_ever(file, _):
    """Publish tasks one after the other, and say the id of each once it is confirmed."""
    async with SqliteBroker.open(file, synchronous="NORMAL") as broker:
        while True:
            envelope = make_envelope(queue="q", priority=3)
            await broker.publish([envelope])
            say(envelope.id)


async def open_it(file, _):
    """Open the file, and say what comes of it."""
    try:
        async with SqliteBroker.open(file) as broker:
            say("opened", (await broker.stats("q")).ready)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
        say(type(error).__name__, error)


async def open_without_rights(file, _):
    """The same, as somebody who is not the owner."""
    load_migrations()  # imports what could not be read afterwards
    if os.geteuid() == 0:
        os.setuid(65534)
    await open_it(file, _)


def lock(file, _):
    """Hold a transaction open until a line of input comes."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    say("locked")
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()
    say("unlocked")


if __name__ == "__main__":
    program = globals()[sys.argv[1]]
    arguments = (sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
    if program is lock:
        lock(*arguments)
    else:
        trio.run(program, *arguments)
