"""Workers and apps beside other work: in trio nurseries, in anyio task groups, and ended together with them."""

from __future__ import annotations

import anyio
import anyio.abc
import pytest
import trio
from trio.testing import MockClock

from stem_trio import (
    InMemoryBroker,
    InMemoryResultBackend,
    Stem,
    StemApp,
    StemSignals,
    StoreError,
    TaskContext,
    TaskState,
    TrioClock,
    Worker,
    WorkerLifecycleConfig,
    WorkerState,
    WorkerStateError,
    task,
)
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker

HOSTS = [trio.open_nursery, anyio.create_task_group]
both_hosts = pytest.mark.parametrize("open_host", HOSTS, ids=["nursery", "task group"])


class Service:
    """A worker, its stores, and two tasks: one that answers, one that hangs and writes down how it ended."""

    def __init__(self, **options) -> None:
        clock = TrioClock()
        self.ended: list[tuple[float, str]] = []
        self.running = 0
        self.faults = Faults()
        self.broker = InMemoryBroker(clock=clock)
        self.backend = InMemoryResultBackend()

        @task(name="double")
        async def double(number: int) -> int:
            await anyio.sleep(1)
            return 2 * number

        @task(name="hang")
        async def hang(context: TaskContext) -> None:
            self.running += 1
            end = "done"
            try:
                # Handlers may be written for anyio, too.
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                    tasks.start_soon(anyio.Event().wait)
            except anyio.get_cancelled_exc_class():
                end = "cancelled"
                raise
            finally:
                self.running -= 1
                self.ended.append((trio.current_time(), end))

        self.double, self.hang = double, hang
        self.stem = Stem(self.broker, self.backend, tasks=[double, hang], signals=StemSignals(), clock=clock)
        options = {"signals": StemSignals(), "clock": clock} | options
        self.worker = Worker(
            FaultyBroker(self.broker, self.faults),
            FaultyBackend(self.backend, self.faults),
            tasks=[double, hang],
            **options,
        )

    async def __aenter__(self):
        await self.broker.__aenter__()
        await self.backend.__aenter__()
        return self

    async def __aexit__(self, *details) -> None:
        await self.backend.__aexit__(*details)
        await self.broker.__aexit__(*details)

    async def assert_given_back(self, handle, ended) -> None:
        """The worker has ended, its handler was cancelled, and the task waits for another, at no cost (G7, G10)."""
        assert self.worker.state is WorkerState.STOPPED
        assert self.worker.in_flight == 0
        assert self.running == 0
        assert self.ended == [(ended, "cancelled")]
        assert (await self.broker.stats("default")).ready == 1
        status = await handle.status()
        assert (status.state, status.attempt) == (TaskState.QUEUED, 0)
        [delivery] = await self.broker.claim(["default"], consumer="other", limit=9, wait=0)
        assert (delivery.envelope.id, delivery.attempt, delivery.strikes) == (handle.id, 0, 0)
        assert await self.backend.list_heartbeats() == []


# --- starting -------------------------------------------------------------------------------------------------------


@both_hosts
async def test_start_gives_the_worker_ready(autojump_clock, open_host):
    """``start(worker.run)`` of either host returns the worker once it claims tasks."""
    async with Service() as service, open_host() as host:
        started = await host.start(service.worker.run)
        assert started is service.worker
        assert service.worker.state is WorkerState.RUNNING
        assert await (await service.double.enqueue(service.stem, 4)).result(timeout=2) == 8
        await service.worker.shutdown()


@both_hosts
async def test_the_convenient_form(autojump_clock, open_host):
    """``worker.start(host)`` is the same."""
    async with Service() as service, open_host() as host:
        await service.worker.start(host)
        assert service.worker.state is WorkerState.RUNNING
        assert await (await service.double.enqueue(service.stem, 4)).result(timeout=2) == 8
        await service.worker.shutdown()


@both_hosts
async def test_start_soon(autojump_clock, open_host):
    """The worker runs in a task like any other; `wait_ready` tells when it does."""
    async with Service() as service, open_host() as host:
        host.start_soon(service.worker.run)
        await service.worker.wait_ready()
        assert await (await service.double.enqueue(service.stem, 4)).result(timeout=2) == 8
        await service.worker.shutdown()


@both_hosts
async def test_shutdown_leaves_the_host_alone(autojump_clock, open_host):
    """G10: a worker that ends is just a task of the host that has returned."""
    beats = []

    async def neighbour() -> None:
        for _ in range(5):
            await anyio.sleep(1)
            beats.append(trio.current_time())

    async with Service() as service:
        async with open_host() as host:
            host.start_soon(neighbour)
            await host.start(service.worker.run)
            handle = await service.double.enqueue(service.stem, 4)
            await anyio.sleep(0.5)
            await service.worker.shutdown()
            assert trio.current_time() == 1
            assert await handle.result(0) == 8
            assert not host.cancel_scope.cancel_called
        assert beats == [1, 2, 3, 4, 5]


@both_hosts
async def test_second_run_is_refused(autojump_clock, open_host):
    """Running a worker twice is an error of whoever tries; the first run goes on."""
    async with Service() as service, open_host() as host:
        await host.start(service.worker.run)
        with pytest.raises(WorkerStateError, match="run before"):
            await host.start(service.worker.run)
        assert await (await service.double.enqueue(service.stem, 4)).result(timeout=2) == 8
        await service.worker.shutdown()


# --- the host ends --------------------------------------------------------------------------------------------------


@both_hosts
async def test_cancel_of_the_host(autojump_clock, open_host):
    """G10: cancelling the host is a hard shutdown; when it has ended nothing runs and nothing is held."""
    async with Service() as service:
        async with open_host() as host:
            await host.start(service.worker.run)
            handle = await service.hang.enqueue(service.stem)
            await anyio.sleep(3)
            host.cancel_scope.cancel()
        await service.assert_given_back(handle, ended=3)


@both_hosts
@pytest.mark.parametrize("move_on_after", [trio.move_on_after, anyio.move_on_after])
async def test_deadline_around_the_host(autojump_clock, open_host, move_on_after):
    """G10: so is a deadline around it, which catches its own cancellation."""
    async with Service() as service:
        with move_on_after(4) as scope:
            async with open_host() as host:
                await host.start(service.worker.run)
                handle = await service.hang.enqueue(service.stem)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await service.assert_given_back(handle, ended=4)


@both_hosts
async def test_cancel_while_the_worker_starts(autojump_clock, open_host):
    """G10: a host that is cancelled before the worker is ready ends cleanly too."""
    signals = StemSignals()

    @signals.worker_init.connect
    async def on_init(event) -> None:
        await trio.sleep_forever()

    async with Service(signals=signals) as service:
        with anyio.move_on_after(2) as scope:
            async with open_host() as host:
                await host.start(service.worker.run)
        assert scope.cancelled_caught
        assert service.worker.state is WorkerState.STOPPED
        assert trio.current_time() < 2 + 30


@both_hosts
async def test_host_does_not_wait_for_a_store_for_ever(autojump_clock, open_host):
    """G10: giving back is shielded from the host's cancellation, and bounded by `force_shutdown_after`."""
    lifecycle = WorkerLifecycleConfig(force_shutdown_after=5)
    async with Service(lifecycle=lifecycle) as service:
        async with open_host() as host:
            await host.start(service.worker.run)
            await service.hang.enqueue(service.stem)
            await anyio.sleep(3)
            service.faults.hang("broker.settle")
            host.cancel_scope.cancel()
        assert trio.current_time() == 3 + 5
        assert service.ended == [(3, "cancelled")]
        assert (await service.broker.stats("default")).leased == 1


@both_hosts
async def test_error_in_the_neighbour(autojump_clock, open_host):
    """G10: when a neighbour fails the worker goes with it: its error stands alone, deliveries are given back."""
    boom = ValueError("boom")

    async def neighbour() -> None:
        await anyio.sleep(3)
        raise boom

    async with Service() as service:
        with pytest.raises(ExceptionGroup) as caught:
            async with open_host() as host:
                await host.start(service.worker.run)
                host.start_soon(neighbour)
                handle = await service.hang.enqueue(service.stem)
                await anyio.sleep_forever()
        assert caught.value.exceptions == (boom,)
        await service.assert_given_back(handle, ended=3)


@both_hosts
async def test_error_in_the_body(autojump_clock, open_host):
    """G10: so it is when the body of the host fails."""
    boom = ValueError("boom")
    async with Service() as service:
        with pytest.raises(ExceptionGroup) as caught:
            async with open_host() as host:
                await host.start(service.worker.run)
                handle = await service.hang.enqueue(service.stem)
                await anyio.sleep(3)
                raise boom
        assert caught.value.exceptions == (boom,)
        await service.assert_given_back(handle, ended=3)


@both_hosts
async def test_error_of_a_handler_stays_with_the_task(autojump_clock, open_host):
    """What a handler raises never reaches the host."""

    @task(name="broken", max_retries=0)
    async def broken() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            raise ValueError("boom")

    signals = StemSignals()
    broker, backend = InMemoryBroker(), InMemoryResultBackend()
    async with broker, backend, open_host() as host:
        worker = Worker(broker, backend, tasks=[broken], signals=signals)
        await host.start(worker.run)
        handle = await broken.enqueue(Stem(broker, backend, signals=signals))
        assert (await handle.wait(1)).state is TaskState.FAILED
        assert worker.state is WorkerState.RUNNING
        await worker.shutdown()


@both_hosts
async def test_failure_of_the_worker_reaches_the_host(autojump_clock, open_host):
    """A worker that fails is a task of the host that has failed; its neighbours are cancelled."""
    error = StoreError("refused")

    def refuse() -> None:
        raise error

    async with Service() as service:
        cancelled = False

        async def neighbour() -> None:
            nonlocal cancelled
            try:
                await anyio.sleep_forever()
            finally:
                cancelled = True

        with pytest.raises(ExceptionGroup) as caught:
            async with open_host() as host:
                host.start_soon(neighbour)
                await host.start(service.worker.run)
                handle = await service.hang.enqueue(service.stem)
                await anyio.sleep(3)
                service.faults.at("backend.put_heartbeat:before", refuse)
                await anyio.sleep_forever()
        assert caught.value.exceptions == (error,)
        assert cancelled
        await service.assert_given_back(handle, ended=10)


@both_hosts
async def test_two_workers_in_one_host(autojump_clock, open_host):
    """Workers beside each other end one by one; the other takes over what the first gave back."""
    async with Service() as service:
        second = Worker(
            service.broker, service.backend, tasks=[service.double], signals=StemSignals(), clock=TrioClock()
        )
        async with open_host() as host:
            await host.start(service.worker.run)
            handle = await service.double.enqueue(service.stem, 4)
            await anyio.sleep(0.5)
            await service.worker.shutdown("hard")
            assert (await handle.status()).state is TaskState.QUEUED
            await host.start(second.run)
            assert await handle.result(timeout=2) == 8
            await second.shutdown()
        assert second.totals["succeeded"] == 1


# --- anyio as the program ------------------------------------------------------------------------------------------


def run_on_anyio(main):
    """Run a program by anyio on trio, under a clock that jumps."""
    return anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def test_anyio_run_with_a_task_group():
    """A program of anyio's has the worker in a task group beside its own work."""

    async def main():
        seen = []

        async def neighbour(*, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            while True:
                await anyio.sleep(1)
                seen.append(trio.current_time())

        async with Service() as service:
            async with anyio.create_task_group() as tasks:
                await tasks.start(neighbour)
                assert await tasks.start(service.worker.run) is service.worker
                handle = await service.double.enqueue(service.stem, 4)
                value = await handle.result(timeout=5)
                hanging = await service.hang.enqueue(service.stem)
                await anyio.sleep(2.5)
                tasks.cancel_scope.cancel()
            await service.assert_given_back(hanging, ended=3.5)
        return value, seen

    assert run_on_anyio(main) == (8, [1, 2, 3])


def test_anyio_run_with_the_worker_alone():
    """``await worker.run()`` is a program, too, which ends with the worker."""

    async def main():
        signals = StemSignals()
        async with Service(signals=signals) as service:
            handle = await service.double.enqueue(service.stem, 4)

            @signals.task_succeeded.connect
            async def on_success(event) -> None:
                with anyio.move_on_after(0.1):
                    await service.worker.shutdown()

            await service.worker.run()
            return await handle.result(0)

    assert run_on_anyio(main) == 8


def test_anyio_run_with_an_app():
    """An app needs no host at all."""

    async def main():
        @task
        async def double(number: int) -> int:
            await anyio.sleep(600)
            return 2 * number

        async with StemApp.in_memory(tasks=[double], signals=StemSignals()) as app:
            with anyio.fail_after(3600):
                return await (await double.enqueue(app, 4)).result()

    assert run_on_anyio(main) == 8


def test_anyio_run_that_fails():
    """An error in a program of anyio's takes the worker along, and comes out alone."""
    services = []
    boom = ValueError("boom")

    async def main():
        async with Service() as service, anyio.create_task_group() as tasks:
            services.append(service)
            await tasks.start(service.worker.run)
            await service.hang.enqueue(service.stem)
            await anyio.sleep(1)
            raise boom

    with pytest.raises(ExceptionGroup) as caught:
        run_on_anyio(main)
    assert caught.value.exceptions == (boom,)
    assert services[0].ended == [(1, "cancelled")]
    assert services[0].worker.state is WorkerState.STOPPED


@both_hosts
async def test_app_within_a_host(autojump_clock, open_host):
    """An app may live in a task of a host; cancelling that is a hard shutdown of the app."""
    ended = []

    @task
    async def hang() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    app = StemApp.in_memory(tasks=[hang], signals=StemSignals(), clock=TrioClock())

    async def live(*, task_status) -> None:
        async with app:
            task_status.started()
            await anyio.sleep_forever()

    async with open_host() as host:
        await host.start(live)
        await hang.enqueue(app)
        await anyio.sleep(2)
        host.cancel_scope.cancel()
    assert ended == [2]
    assert app.worker.state is WorkerState.STOPPED
    async with app.broker:
        assert (await app.broker.stats("default")).ready == 1
