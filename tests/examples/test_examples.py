"""The programs in examples/, in the README and in the docs run as they are written, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from stem_trio import TaskState, open_backend

ROOT = Path(__file__).parents[2]

# What each prints. Handlers that run side by side print in any order, so lines are compared as a sorted list.
EXPECTED = {
    "minimal_producer.py": ["Sending to hello@example.com"],
    "minimal_worker.py": ["Sending to ada@example.com (attempt 0)", "succeeded"],
    "retries_and_signals.py": [
        r"attempt 0 failed with ConnectionError; next run at \d\d:\d\d:\d\d",
        r"attempt 1 failed with ConnectionError; next run at \d\d:\d\d:\d\d",
        "demo.flaky succeeded on attempt 2",
        "done after 2 failures",
    ],
    "combined_runtime.py": ["login by task audit.write"],
    "typed_tasks.py": [
        "2",
        "5",
        "Sending 'Hi' to a@b.c",
        "Sending 'Hi' to u@v.w",
        "Sending 'Hi' to x@y.z",
        "Sending 'Later' to d@e.f",
        "cat-640.png",
        "no data for this month",
        "refused: to",
        "succeeded",
        "succeeded",
    ],
    "inside_a_handler.py": [
        "3 pages, cut short; ada may go on tomorrow",
        "4 tasks succeeded",
        r"running: \d+ %",
    ],
    "lifecycle.py": [
        r"QueueStats\(ready=1, delayed=0, leased=0, dead=0\)",
        "hard: lifecycle.endless is queued, attempt 0, returned None",
        'soft: lifecycle.polite is succeeded, attempt 0, returned "stopped when asked"',
        'warm: lifecycle.quick is succeeded, attempt 0, returned "finished in time"',
    ],
}


def run(*command: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example(name):
    """Each example ends well and prints what it should."""
    done = run(f"examples/{name}")
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    patterns = sorted(EXPECTED[name])
    assert len(lines) == len(patterns), done.stdout
    for line, pattern in zip(lines, patterns, strict=True):
        assert line == pattern or re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"


def test_every_example_is_run():
    """No program in the folder is left out."""
    programs = {path.name for path in (ROOT / "examples").glob("*.py")}
    # Those in test_web_examples.py are started as servers.
    services = {"fastapi_app.py", "starlette_trio.py", "flask_app.py", "anyio_service.py"}
    others = {"durable_app.py", "testing_example.py", "redis_producer.py", "redis_worker.py", "signed_producer.py"}
    assert programs == {*EXPECTED, *services, *others}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "billing.charge is queued, not signed"),
        ({"STEM_SIGNING_KEYS": f"k1:{'A' * 43}="}, "billing.charge is queued, signed with key k1"),
    ],
)
def test_signed_producer(variables, says):
    """A program that is configured by its environment alone signs as soon as there is a key."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STEM_")}
    done = run("examples/signed_producer.py", env=env | {"STEM_BROKER_URL": "memory://"} | variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == says
    refused = run("examples/signed_producer.py", env=env | variables)
    assert "STEM_BROKER_URL: is not set" in refused.stderr
    assert "A" * 43 not in refused.stderr


def test_durable_app(tmp_path):
    """G1: what a program leaves in its file, its next run finishes; a third one still knows how it ended."""
    program = str(ROOT / "examples" / "durable_app.py")
    for says in ("enqueued: run me again to see it done", "report of November", "report of November"):
        done = run(program, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [says]
    assert (tmp_path / "durable_app.db").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
async def test_redis_producer_and_worker(redis_url):
    """G10: a producer and a worker in two processes meet on one server; SIGTERM ends the worker in good order."""
    server = redis_url.rpartition("/")[0]
    env = os.environ | {
        "STEM_BROKER_URL": f"{server}/0",
        "STEM_RESULT_BACKEND_URL": f"{server}/1",
        "PYTHONUNBUFFERED": "1",
    }
    produced = run("examples/redis_producer.py", env=env)
    assert produced.returncode == 0, produced.stderr
    report, _, state = produced.stdout.strip().partition(" is ")
    assert state == "queued"
    command = [sys.executable, "-W", "error", "examples/redis_worker.py"]
    async with open_backend(f"{server}/1") as backend, trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            command,
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            capture_stderr=True,
            check=False,
        )
        with trio.fail_after(50):
            worker = await nursery.start(start)
            try:
                lines = b""
                while b"Sending" not in lines:  # the email is sent by what the report enqueues
                    received = await worker.stdout.receive_some()
                    assert received, lines
                    lines += received
                worker.terminate()
                async for received in worker.stdout:
                    lines += received
                assert await worker.wait() == 0
            finally:
                if worker.returncode is None:
                    worker.kill()
        assert lines.decode().splitlines() == [
            "Report monthly-2025-10",
            "Sending to ada@example.com (attempt 0)",
            "all done",
        ]
        assert (await backend.get(report)).state is TaskState.SUCCEEDED


def test_the_example_of_a_test():
    """The example of a user's test passes, with the fixtures of the installed plugin."""
    done = run("-m", "pytest", "-q", "examples/testing_example.py")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def programs_in(page: Path) -> list[str]:
    """The Python blocks of a page that are whole programs."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if "trio.run(" in block and "import trio" in block]


PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md"]
SNIPPETS = [(page.name, number, code) for page in PAGES for number, code in enumerate(programs_in(page))]


@pytest.mark.parametrize(("page", "number", "code"), SNIPPETS, ids=[f"{name}-{n}" for name, n, _ in SNIPPETS])
def test_program_on_a_page(page, number, code, tmp_path):
    """Whole programs shown in the README and on the first page run as they stand."""
    program = tmp_path / "program.py"
    program.write_text(code, encoding="utf-8")
    done = run(str(program))
    assert done.returncode == 0, done.stderr
    assert "Sending" in done.stdout


def test_pages_have_programs():
    """The blocks are found at all."""
    assert len(SNIPPETS) >= 3
