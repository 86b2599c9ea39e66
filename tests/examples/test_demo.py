"""The demo, which is the README's first command, as a process: how it ends, and that nothing is left of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial

import pytest
import trio

from stem_trio import SqliteResultBackend, StemClient, StemSignals, TaskState
from stem_trio.demo.ledger import Ledger
from stem_trio.demo.tasks import TASKS, back_up, send_mail

# As at a terminal, where nobody has told the tests' own process to ignore it.
WITH_CTRL_C = (
    "import runpy, signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "runpy.run_module('stem_trio.demo', run_name='__main__', alter_sys=True)\n"
)


async def demo(*arguments, **options):
    command = [sys.executable, "-W", "error", "-m", "stem_trio.demo", *arguments]
    with trio.fail_after(50):
        return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, **options)


async def test_the_whole(tmp_path):
    """G1: a worker is killed in the middle of a task, the next one takes the task up again, and nothing is lost."""
    done = await demo(env=os.environ | {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path)})
    output = done.stdout.decode()
    assert done.returncode == 0, output + done.stderr.decode()
    assert not done.stderr
    for what in ("started", "retrying", "progress", "succeeded", "failed", "revoked", "expired", "Dead letters"):
        assert what in output
    course = [
        r"kill -9 \d+: worker 1 is killed",
        r"archive\.pack is still running, says its status",
        r"worker 2  archive\.pack +started +attempt 0, taken up again",
        r"worker 2  archive\.pack +succeeded",
    ]
    assert re.search(r".*".join(course), output, re.DOTALL), output
    if sys.platform != "win32":
        assert f"worker 1 is gone (exit code {-signal.SIGKILL})" in output
    assert not re.search(r"worker 1  archive\.pack +succeeded", output)
    ledger = output.partition("\nLedger\n")[2].split()
    assert ledger[:5] == ["enqueued", "14", "succeeded", "10", "failed"], output
    assert re.search(r"failed as intended +4 .*\n  lost +0\nNothing is lost, and nothing is left running\.\n", output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
async def test_interrupted(tmp_path, number, code):
    """Neither Ctrl-C nor the death of the demo leaves its worker behind. A file that was named stays."""
    file = tmp_path / "demo.db"
    start = partial(
        trio.run_process,
        [sys.executable, "-W", "error", "-c", WITH_CTRL_C, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
    )
    with trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(start)
            output = b""
            while b"backup.run     started" not in output:
                received = await process.stdout.receive_some()
                assert received, output
                output += received
            process.send_signal(number)
            # The worker has this pipe too: it ends when both of them are gone.
            told = b"".join([received async for received in process.stderr])
            assert await process.wait() == code
            await process.stdout.aclose()
    assert told == (b"\nInterrupted; nothing is left running.\n" if number == signal.SIGINT else b"")
    assert file.exists()
    async with SqliteResultBackend.open(file) as backend:
        heartbeats = await backend.list_heartbeats()
    if number == signal.SIGINT:  # the demo has killed it
        with pytest.raises(ProcessLookupError):
            os.kill(heartbeats[0].pid, 0)
    else:  # it has seen by itself that there is no demo any more, and left in good order
        assert heartbeats == []


async def test_a_file_of_somebody_else(tmp_path):
    """What cannot work is said in a line, and is no success."""
    file = tmp_path / "letter.txt"
    file.write_text("Dear Ada, this is no database, and should stay as it is. " * 20)
    done = await demo(str(file))
    assert done.returncode == 1
    assert "The demo has failed: ConfigurationError: " in done.stderr.decode()
    assert str(file) in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert file.read_text().startswith("Dear Ada")


async def test_ledger_notices(capsys, autojump_clock):
    """A task that has not come to an end is lost, one that ends otherwise is a surprise; both are no success."""
    async with StemClient.in_memory(tasks=TASKS, signals=StemSignals()) as client:
        ledger = Ledger()
        for _ in range(2):
            ledger.enqueued(await send_mail.enqueue(client, "ada@example.com"))
        ledger.enqueued(await back_up.with_options(queue="purged").enqueue(client), TaskState.FAILED)
        await client.purge("purged")
        ledger.add("mail.send", "unheard-of")
        await ledger.close(client)
    ledger.show()
    assert not ledger.is_good
    assert ledger.lost == 3
    assert "backup.run was to be failed, and is revoked" in ledger.surprises
    assert re.search(
        r"enqueued +4\n +succeeded +0\n +failed as intended +0 .*\n +failed otherwise +1\n +lost +3\n",
        capsys.readouterr().out,
    )
