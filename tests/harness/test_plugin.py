"""The pytest plugin: apps that live as long as the test, and fail it when their worker does."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest
from trio.testing import wait_all_tasks_blocked

from stem_trio import (
    InvalidOptionError,
    StoreClosedError,
    TaskContext,
    TaskState,
    WorkerState,
    WorkerStateError,
    task,
)
from stem_trio.testing.app import RecordingStemApp

pytest_plugins = ["pytester"]


@task(name="double")
async def double(number: int) -> int:
    return 2 * number


# --- within a test --------------------------------------------------------------------------------------------------


async def test_makes_an_app(stem_app, autojump_clock):
    """The app is open, runs what is enqueued, and remembers it."""
    app = await stem_app(tasks=[double])
    assert isinstance(app, RecordingStemApp)
    assert app.worker.state is WorkerState.CREATED
    assert await (await double.enqueue(app, 4)).result(timeout=1) == 8
    assert app.enqueued(double, number=4)


async def test_makes_several(stem_app, autojump_clock):
    """Any number of apps live beside each other, and share nothing."""
    apps = [await stem_app(tasks=[double]) for _ in range(3)]
    for number, app in enumerate(apps):
        await app.enqueue("double", {"number": number}, task_id="same-id")
    for number, app in enumerate(apps):
        await app.drain()
        assert (await app.wait_for_task("same-id", 0)).value == 2 * number
        assert [entry.args for entry in app.enqueued()] == [{"number": number}]
    assert len({id(app.broker) for app in apps}) == len({app.worker.id for app in apps}) == 3


async def test_unused(stem_app):
    """A test that makes no app costs nothing."""


async def test_takes_the_options_of_the_app(stem_app, autojump_clock):
    """What is refused is refused where it is asked for, and takes no other app along."""
    first = await stem_app(tasks=[double], queues=["mine"])
    with pytest.raises(InvalidOptionError):
        await stem_app(concurrency=0)
    with pytest.raises(TypeError, match="no_such_option"):
        await stem_app(no_such_option=1)
    second = await stem_app(tasks=[double])
    assert first.worker.queues == ("mine",)
    assert await (await double.enqueue(second, 4)).result(timeout=1) == 8


async def test_failure_of_a_task_is_no_failure_of_the_test(stem_app, autojump_clock):
    """What a handler raises is the status of its task, and nothing else."""

    @task(max_retries=1)
    async def broken(context: TaskContext) -> None:
        raise ValueError(f"boom {context.attempt}")

    app = await stem_app(tasks=[broken])
    handle = await broken.enqueue(app)
    await app.drain()
    status = await handle.status()
    assert status.state is TaskState.FAILED
    assert status.error.message == "boom 1"


async def test_follows_the_clock_of_the_test(stem_app, mock_clock):
    """With a clock that stands still nothing that is delayed begins; it begins when the test moves the clock."""
    app = await stem_app(tasks=[double])
    handle = await double.with_options(delay=20).enqueue(app, 1)
    await wait_all_tasks_blocked()
    assert (await handle.status()).state is TaskState.QUEUED
    mock_clock.jump(19)
    await wait_all_tasks_blocked()
    assert (await handle.status()).state is TaskState.QUEUED
    mock_clock.jump(1)
    await wait_all_tasks_blocked()
    assert (await handle.status()).state is TaskState.SUCCEEDED


@pytest.fixture
async def app_of_a_fixture(stem_app):
    """A fixture of a project's that builds on the plugin's."""
    app = await stem_app(tasks=[double])
    await app.start()
    yield app
    # The app is open until those who use it have gone.
    assert await (await double.enqueue(app, 5)).result(timeout=1) == 10


async def test_fixtures_may_build_on_it(app_of_a_fixture, stem_app, autojump_clock):
    """Fixtures and tests may both make apps."""
    assert await (await double.enqueue(app_of_a_fixture, 4)).result(timeout=1) == 8
    assert (await stem_app()).worker.state is WorkerState.CREATED


# --- around a test --------------------------------------------------------------------------------------------------

HEAD = """
    import json
    from pathlib import Path

    import pytest
    import trio

    from stem_trio import StoreError, WorkerLifecycleConfig, task

    diary = Path(__file__).with_name("diary")

    def write(entry):
        with diary.open("a") as file:
            file.write(json.dumps(entry) + "\\n")
"""


@pytest.fixture
def run_tests(pytester):
    """Runs a test module of somebody's in a process of its own, with the plugin as installed."""

    def run(body, *, trio_mode=True):
        ini = "[pytest]\nfilterwarnings = error\n" + ("trio_mode = true\n" if trio_mode else "")
        pytester.makeini(ini)
        pytester.makepyfile(textwrap.dedent(HEAD) + textwrap.dedent(body))
        return pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", timeout=50)

    return run


@pytest.fixture
def diary(pytester):
    """What those tests have written down."""

    def read():
        return [json.loads(line) for line in (pytester.path / "diary").read_text().splitlines()]

    return read


def test_apps_are_shut_down_when_the_test_ends(run_tests, diary):
    """G10: all apps are shut down warm, and closed, before the next test; also where the test has failed."""
    result = run_tests(
        """
        async def use(stem_app, name, fail=False):
            @task
            async def work():
                write([name, "began", trio.current_time()])
                await trio.sleep(5)
                write([name, "ended", trio.current_time()])

            for _ in range(2):
                app = await stem_app(tasks=[work])
                app.stem.signals.worker_shutdown.connect(lambda event: write([name, event.mode]))
                await work.enqueue(app)
            await trio.sleep(1)
            assert not fail, "on purpose"

        async def test_one(stem_app, autojump_clock):
            await use(stem_app, "one")

        async def test_two(stem_app, autojump_clock):
            await use(stem_app, "two", fail=True)

        async def test_three(stem_app, autojump_clock):
            await use(stem_app, "three")
        """
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: on purpose*"])
    entries = diary()
    for position, name in enumerate(["one", "two", "three"]):
        part = entries[6 * position : 6 * position + 6]
        expected = [[name, "began", 0], [name, "ended", 5], [name, "warm"]]
        # Both began together, up to a moment.
        rounded = [[*entry[:2], *map(round, entry[2:])] for entry in part]
        assert sorted(rounded, key=str) == sorted(expected * 2, key=str)


def test_handler_that_never_ends(run_tests, diary):
    """G10: a handler that outlasts its test is cancelled when the grace period ends; the test does not hang."""
    result = run_tests(
        """
        async def test_hangs(stem_app, autojump_clock):
            @task
            async def hang():
                try:
                    await trio.sleep_forever()
                finally:
                    write(trio.current_time())

            app = await stem_app(tasks=[hang], lifecycle=WorkerLifecycleConfig(soft_grace_period=20))
            await hang.enqueue(app)
            await trio.sleep(1)
        """
    )
    result.assert_outcomes(passed=1)
    [ended] = diary()
    assert ended == pytest.approx(21)


def test_error_in_the_worker_fails_the_test(run_tests, diary):
    """A worker that fails ends the test at once, and with its error; an app beside it is shut down."""
    result = run_tests(
        """
        @task
        async def nothing():
            pass

        async def test_fails(stem_app, autojump_clock):
            other = await stem_app(tasks=[nothing])
            other.stem.signals.worker_shutdown.connect(lambda event: write("other was shut down"))
            await other.start()
            app = await stem_app(tasks=[nothing])
            await app.start()
            await trio.sleep(1)  # the first heartbeat is out

            async def broken(*args, **kwargs):
                raise StoreError("the store refused")

            app.backend.put_heartbeat = broken
            try:
                await trio.sleep_forever()
            finally:
                write(["cancelled", trio.current_time()])

        async def test_fails_in_the_end(stem_app, autojump_clock):
            app = await stem_app(tasks=[nothing])

            async def broken(*args, **kwargs):
                raise StoreError("the store refused this too")

            app.broker.settle = broken
            await nothing.enqueue(app)

        async def test_next(stem_app, autojump_clock):
            app = await stem_app(tasks=[nothing])
            await (await nothing.enqueue(app)).result(timeout=1)
        """
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*StoreError: the store refused", "*StoreError: the store refused this too"])
    assert sorted(diary(), key=str) == sorted(["other was shut down", ["cancelled", 10]], key=str)


def test_without_trio_mode(run_tests):
    """It works for a test that is marked as trio's, with no configuration at all."""
    result = run_tests(
        """
        @task
        async def double(number: int) -> int:
            return 2 * number

        @pytest.mark.trio
        async def test_marked(stem_app, autojump_clock):
            app = await stem_app(tasks=[double])
            assert await (await double.enqueue(app, 4)).result(timeout=1) == 8
        """,
        trio_mode=False,
    )
    result.assert_outcomes(passed=1)


def test_the_plugin_is_listed_and_light(pytester):
    """Pytest finds the fixture by itself, and runs that do not use it do not load the harness for it."""
    pytester.makepyfile(
        test_light="""
        import sys

        def test_light():
            assert "stem_trio.testing.plugin" in sys.modules
            assert "stem_trio.testing.app" not in sys.modules
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly", timeout=50)
    result.assert_outcomes(passed=1)
    listed = pytester.runpytest_subprocess("--fixtures", timeout=50)
    listed.stdout.fnmatch_lines(["stem_app -- *plugin.py*", "*Makes apps in memory*"])


async def test_closed_when_the_fixture_ends():
    """The app of a test is of no use after it."""
    app = RecordingStemApp.for_test(tasks=[double])
    async with app:
        await app.start()
    with pytest.raises(WorkerStateError):
        await double.enqueue(app, 1)
    with pytest.raises(StoreClosedError):
        await app.status("any")
    assert "stem_trio.testing.plugin" in sys.modules
