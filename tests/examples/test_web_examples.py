"""The services in examples/, each started as a real server, asked over real HTTP, and ended by SIGTERM."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trio

from stem_trio import StemClient
from tests.redis.servers import free_port, serve

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

# Not every warning: a server's own imports may warn of deprecations.
STRICT = [sys.executable, "-W", "error::RuntimeWarning", "-W", "error::ResourceWarning"]


def command(name: str, port: int) -> list[str]:
    match name:
        case "fastapi":
            server = ["-m", "uvicorn", "--app-dir", "examples", "--port", str(port), "fastapi_app:app"]
        case "fastapi-uvloop":
            return [*command("fastapi", port), "--loop", "uvloop"]
        case "starlette":
            server = ["-m", "hypercorn", "--worker-class", "trio", "-b", f"127.0.0.1:{port}"]
            server.append("examples/starlette_trio.py:app")
        case "flask":
            server = ["examples/flask_app.py", str(port)]
        case _:
            server = ["examples/anyio_service.py", name, str(port)]
    return [*STRICT, *server]


@contextlib.contextmanager
def running(name: str, log: Path, url: str):
    """A server, from when it accepts connections until SIGTERM has ended it well."""
    port = free_port()
    env = os.environ | {"STEM_BROKER_URL": url, "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        server = subprocess.Popen(command(name, port), cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            time.sleep(0.02)
        yield port
        server.send_signal(signal.SIGTERM)
        # uvicorn ends by the signal that it was sent, once everything is shut down.
        assert server.wait(20) in ((0, -signal.SIGTERM) if name.startswith("fastapi") else (0,)), log.read_text()
        text = log.read_text()
        assert "Traceback" not in text
        assert "Warning" not in text
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


async def unfinished(url: str) -> int:
    async with StemClient.from_url(url) as client:
        return (await client.broker.stats("default")).unfinished


def queued(url: str) -> int:
    return trio.run(unfinished, url)


@pytest.fixture
def url(tmp_path):
    """A store of its own that several processes share."""
    return f"sqlite:///{tmp_path}/tasks.db"


SERVICES = ["fastapi", "fastapi-uvloop", "flask"]


@pytest.mark.parametrize("name", SERVICES)
def test_service_that_enqueues(name, url, tmp_path):
    """G15: an HTTP service enqueues, tells states, and refuses wrong arguments before anything reaches the queue."""
    if name == "fastapi-uvloop":
        pytest.importorskip("uvloop")
    with running(name, tmp_path / "log", url) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        accepted = http.post("/emails", json={"to": "ada@example.com"})
        assert accepted.status_code == 202
        task_id = accepted.json()["id"]
        assert http.get(f"/tasks/{task_id}").json() == {"id": task_id, "state": "queued"}
        assert http.get("/tasks/nobody").status_code == 404
        assert queued(url) == 1
        for wrong, argument in (({"to": 5}, "to"), ({}, "to"), ({"to": "a@b.c", "cc": "d@e.f"}, "cc")):
            refused = http.post("/emails", json=wrong)
            assert refused.status_code == 422
            assert refused.json()["argument"] == argument
            assert argument in refused.json()["error"]
        assert queued(url) == 1


@pytest.mark.parametrize("name", ["fastapi", "flask"])
def test_service_without_its_store(name, tmp_path):
    """G11: while the store is away the service answers 503, within a bounded time, and it recovers."""
    with serve() as store, running(name, tmp_path / "out", f"{store.url}/0") as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            assert http.post("/emails", json={"to": "ada@example.com"}).status_code == 202
            store.kill()
            refused = http.post("/emails", json={"to": "ada@example.com"})
            assert (refused.status_code, refused.json()) == (503, {"error": "try again later"})
            assert http.post("/emails", json={"to": 5}).status_code == 422
            store.start()
            deadline = time.monotonic() + 20
            while http.post("/emails", json={"to": "ada@example.com"}).status_code != 202:
                assert time.monotonic() < deadline


def test_service_with_a_worker_inside(tmp_path):
    """Under hypercorn's trio worker one process enqueues and works off."""
    with running("starlette", tmp_path / "log", "memory://") as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            accepted = http.post("/emails", json={"to": "ada@example.com", "subject": "Hello"})
            assert accepted.status_code == 202
            task_id = accepted.json()["id"]
            done = {"id": task_id, "state": "succeeded", "value": 5}
            assert http.get(f"/tasks/{task_id}", params={"wait": 10}).json() == done
            assert http.get(f"/tasks/{task_id}").json() == {"id": task_id, "state": "succeeded"}
            assert http.get("/tasks/nobody").status_code == 404
            refused = http.post("/emails", json={"to": "ada@example.com", "subject": 5})
            assert (refused.status_code, refused.json()["argument"]) == (422, "subject")
            assert http.post("/emails", content=b"{").status_code == 422
            assert http.get("/queue").json() == {"unfinished": 0}
    assert "Sending 'Hello' to ada@example.com" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_anyio_service(name, url, tmp_path):
    """One service on either backend of anyio."""

    def ask(request: bytes) -> dict[str, object]:
        connection.sendall(request + b"\n")
        return json.loads(answers.readline())

    with running(name, tmp_path / "log", url) as port, socket.create_connection(("127.0.0.1", port), 20) as connection:
        answers = connection.makefile("rb")
        task_id = ask(b'{"to": "ada@example.com"}')["id"]
        assert ask(json.dumps({"status": task_id}).encode()) == {"id": task_id, "state": "queued"}
        assert ask(b'{"to": 5}')["argument"] == "to"
        assert "not JSON" in ask(b"{")["error"]
        assert queued(url) == 1
