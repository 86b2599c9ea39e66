"""A program that `test_signals_os.py` runs and sends signals to: one worker, one task, and a line for what happens.

Run as ``python signals_program.py HOST INSTALL KIND``.

HOST: ``alone`` awaits `Worker.run` in the main task; ``beside`` does so beside another task of its own; ``start_soon``,
``start`` and ``block`` embed the worker in a nursery; ``thread`` runs trio in another thread.
INSTALL: ``default``, ``yes`` or ``no``, for `install_signal_handlers`.
KIND: what the handler does: ``reads`` a line from standard input and returns; ``stubborn`` cannot be cancelled.
"""

from __future__ import annotations

import resource
import signal
import sys
import threading

import trio
from trio.testing import wait_all_tasks_blocked

from stem_trio import (
    InMemoryBroker,
    InMemoryResultBackend,
    StemSignals,
    TaskContext,
    Worker,
    WorkerLifecycleConfig,
    task,
)

HOST, INSTALL, KIND = sys.argv[1:]


def say(*words: object) -> None:
    print(*words, flush=True)


@task(name="job")
async def job(context: TaskContext) -> None:
    await wait_all_tasks_blocked()  # a Ctrl-C strikes whatever runs, which is to be nothing but this
    say("started")
    async with trio.open_nursery() as nursery:

        async def tell() -> None:
            await context.cancelled.wait()
            say("asked")

        nursery.start_soon(tell)
        try:
            await trio.lowlevel.wait_readable(sys.stdin)
            say("finished")
        except trio.Cancelled:
            say("cancelled")
            with trio.CancelScope(shield=KIND == "stubborn"):
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def main() -> None:
    signals = StemSignals()
    signals.worker_ready.connect(lambda _: say("ready", handled()))
    signals.worker_stopping.connect(lambda event: say("stopping", event.mode))
    signals.worker_shutdown.connect(lambda event: say("stopped", event.mode))
    lifecycle = WorkerLifecycleConfig(install_signal_handlers={"default": None, "yes": True, "no": False}[INSTALL])
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend:
        worker = Worker(broker, backend, tasks=[job], signals=signals, lifecycle=lifecycle)
        handle = await job.enqueue(worker.stem)
        try:
            await run(worker)
        finally:
            with trio.CancelScope(shield=True):
                stats = await broker.stats("default")
                say("state", (await handle.status()).state.value, "ready", stats.ready, "leased", stats.leased)
            say("handlers", handled())


async def run(worker: Worker) -> None:
    if HOST in {"alone", "thread"}:
        await worker.run()
    elif HOST == "block":
        async with worker:
            await trio.sleep_forever()
    else:
        async with trio.open_nursery() as nursery:
            if HOST == "beside":
                nursery.start_soon(trio.sleep_forever)
                await worker.run()
                nursery.cancel_scope.cancel()
            elif HOST == "start":
                await nursery.start(worker.run)
            else:
                nursery.start_soon(worker.run)


def handled() -> str:
    """Which signals somebody handles, other than the interpreter itself."""
    usual = (signal.SIG_DFL, signal.default_int_handler)
    # trio's own handler of Ctrl-C, for as long as it runs, is not the worker's.
    numbers = [signal.SIGTERM, signal.SIGQUIT]
    return ",".join(number.name for number in numbers if signal.getsignal(number) not in usual) or "none"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGQUIT would leave a core dump
    # A program that a shell has started in the background has inherited that some of them are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if HOST == "thread":
        thread = threading.Thread(target=trio.run, args=(main,))
        thread.start()
        thread.join()
    else:
        trio.run(main)
