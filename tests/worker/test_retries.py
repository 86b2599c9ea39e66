"""Whether a failed task runs again, and when: who says so, and who is overruled."""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from itertools import pairwise

import pytest
import trio
import trio.testing

from stem_trio import (
    ExponentialJitterRetryStrategy,
    FixedRetryStrategy,
    HardTimeLimitError,
    RetryPolicy,
    TaskContext,
    TaskState,
    task,
)


class Scripted:
    """A strategy that remembers what it was asked, and answers what it is told to."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __repr__(self):
        return "<Scripted>"

    def next_delay(self, attempt, error):
        self.asked.append((attempt, error))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def flat(seconds, **options):
    """A policy that always waits as long."""
    return RetryPolicy(base=seconds, factor=1, jitter=0, **options)


async def delays(rig, call, strategy=None):
    """Run one call to its end; the delays of its retries, as signals tell them and as it was really run."""
    rig.listen("task_retry")
    handle = await rig.stem.submit(call)
    options = {} if strategy is None else {"retry_strategy": strategy}
    async with rig.worker(call.definition.source, **options):
        result = await handle.wait()
    told = [event.delay for name, event in rig.events if name == "task_retry"]
    began = [run.began for run in rig.ledger.runs]
    assert [later - earlier for earlier, later in pairwise(began)] == pytest.approx(told)
    return told, result


# --- who says how long --------------------------------------------------------------------------------------------


async def test_strategy_of_the_worker(rig, ledger, autojump_clock):
    """A task without a policy waits as the worker's strategy says; it is asked with attempt and error."""

    @task(name="failing", max_retries=3)
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            raise ValueError(f"attempt {context.attempt}")

    strategy = Scripted(1, 20, 300)
    told, result = await delays(rig, failing.bind(), strategy)
    assert told == [1, 20, 300]
    assert [(attempt, str(error)) for attempt, error in strategy.asked] == [
        (0, "attempt 0"),
        (1, "attempt 1"),
        (2, "attempt 2"),
    ]
    assert (result.state, result.attempt, result.reason) == (TaskState.FAILED, 3, "max-retries-exhausted")


async def test_policy_of_the_task_over_the_strategy(rig, ledger, autojump_clock):
    """A task's own policy takes the place of the strategy, which is not asked."""

    @task(name="failing", max_retries=3, retry_policy=RetryPolicy(base=2, factor=3, max=15, jitter=0))
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            raise ValueError

    strategy = Scripted()
    told, _ = await delays(rig, failing.bind(), strategy)
    assert told == [2, 6, 15]
    assert strategy.asked == []


async def test_policy_of_the_call_over_that_of_the_task(rig, ledger, autojump_clock):
    """A policy given with one call says how long to wait; on what to retry stays the task's business."""
    own = flat(100, retry_on=OSError)

    @task(name="failing", max_retries=3, retry_policy=own)
    async def failing(context: TaskContext, errors: list[str]) -> None:
        with ledger.run(context):
            raise {"os": OSError, "value": ValueError}[errors[context.attempt]]

    call = failing.with_options(retry_policy=flat(7)).bind(["os", "os", "value"])
    told, result = await delays(rig, call, Scripted())
    assert told == [7, 7]
    assert (result.state, result.reason, result.attempt) == (TaskState.FAILED, "not-retryable", 2)


async def test_policy_of_the_call_over_the_strategy(rig, ledger, autojump_clock):
    """A policy given with one call overrules the strategy for a task that has none, too."""

    @task(name="failing", max_retries=1)
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            raise ValueError

    told, _ = await delays(rig, failing.with_options(retry_policy=flat(7)).bind(), Scripted())
    assert told == [7]


@pytest.mark.parametrize("own", [None, 100.0])
@pytest.mark.parametrize("with_call", [None, 7.0])
async def test_request_of_the_handler_over_all(rig, ledger, autojump_clock, own, with_call):
    """`context.retry(after=)` overrules strategy, task and call."""

    @task(name="asking", max_retries=1, retry_policy=None if own is None else flat(own))
    async def asking(context: TaskContext) -> None:
        with ledger.run(context):
            context.retry(after=0.5)

    options = {} if with_call is None else {"retry_policy": flat(with_call)}
    told, _ = await delays(rig, asking.with_options(**options).bind(), Scripted())
    assert told == [0.5]


async def test_request_without_a_time_follows_the_order(rig, ledger, autojump_clock):
    """`context.retry()` waits as a failure would: here as the call says."""

    @task(name="asking", max_retries=1, retry_policy=flat(100))
    async def asking(context: TaskContext) -> None:
        with ledger.run(context):
            context.retry()

    told, _ = await delays(rig, asking.with_options(retry_policy=flat(7)).bind(), Scripted())
    assert told == [7]


async def test_call_sets_the_number_of_retries(rig, ledger, autojump_clock):
    """`max_retries` of the call counts, not the task's."""

    @task(name="failing", max_retries=9)
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            raise ValueError

    told, result = await delays(rig, failing.with_options(max_retries=1).bind(), FixedRetryStrategy(3))
    assert told == [3]
    assert result.attempt == 1


# --- what is worth a retry ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "error", "again"),
    [
        (None, ValueError(), True),
        (None, SystemExit(), True),
        (flat(1), ValueError(), True),
        (flat(1), SystemExit(), False),
        (flat(1, retry_on=OSError), ConnectionError(), True),
        (flat(1, retry_on=OSError), ValueError(), False),
        (flat(1, retry_on=(OSError, ValueError)), ValueError(), True),
        (flat(1, never_retry=ValueError), UnicodeError(), False),
        (flat(1, never_retry=ValueError), OSError(), True),
        (flat(1, retry_on=OSError, never_retry=ConnectionError), ConnectionResetError(), False),
        (flat(1, retry_on=OSError, never_retry=ConnectionError), FileNotFoundError(), True),
        (flat(1, retry_on=OSError), ExceptionGroup("all", [OSError(), ConnectionError()]), True),
        (flat(1, retry_on=OSError), ExceptionGroup("some", [OSError(), ValueError()]), False),
        (flat(1, never_retry=ExceptionGroup), ExceptionGroup("any", [OSError()]), False),
    ],
)
async def test_filters(rig, ledger, autojump_clock, policy, error, again):
    """What a policy does not hold worth a retry goes to the dead letters at once, with retries left."""

    @task(name="failing", max_retries=1, retry_policy=policy)
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            raise error

    told, result = await delays(rig, failing.bind())
    assert (len(told), len(ledger.runs)) == ((1, 2) if again else (0, 1))
    assert result.reason == ("max-retries-exhausted" if again else "not-retryable")
    assert result.error.retryable is again
    assert (await rig.dead_letter(result.task_id)).reason == result.reason


async def test_request_beats_the_filters(rig, ledger, autojump_clock):
    """A handler that asks for a retry gets it, whatever the policy holds worth one."""

    @task(name="asking", max_retries=1, retry_policy=flat(1, never_retry=Exception))
    async def asking(context: TaskContext) -> None:
        with ledger.run(context):
            context.retry()

    told, _ = await delays(rig, asking.bind())
    assert told == [1]


async def test_hard_limit_waits_by_the_same_rules(rig, ledger, autojump_clock):
    """A run that has timed out waits as the policy or the strategy says; the strategy is told why."""

    @task(name="slow", max_retries=1, hard_time_limit=10)
    async def slow(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep_forever()

    strategy = Scripted(30)
    rig.listen("task_retry")
    handle = await rig.enqueue(slow)
    async with rig.worker(slow, retry_strategy=strategy):
        await handle.wait(timeout=100)
    assert [run.began - ledger.runs[0].began for run in ledger.runs] == [0, pytest.approx(40)]
    [(attempt, error)] = strategy.asked
    assert (attempt, type(error)) == (0, HardTimeLimitError)


async def test_never_the_last_delay(rig, ledger, autojump_clock):
    """After the last run there is nothing to wait for, and nobody is asked how long."""

    @task(name="failing")
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            raise ValueError

    strategy = Scripted()
    assert (await delays(rig, failing.bind(), strategy))[0] == []
    assert strategy.asked == []


# --- strategies that go wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [RuntimeError("bug"), math.nan, math.inf, -1, None, "soon", 10**400], ids=lambda answer: repr(answer)[:12]
)
async def test_faulty_strategy(rig, ledger, autojump_clock, caplog, answer):
    """A strategy that raises, or answers nonsense, is replaced by the default: it must not take the worker down."""

    @task(name="failing", max_retries=1)
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            raise ValueError

    with caplog.at_level(logging.ERROR, logger="stem_trio.worker.failure"):
        told, result = await delays(rig, failing.bind(), Scripted(answer))
    assert result.attempt == 1
    assert 1.5 <= told[0] <= 2.0
    assert "<Scripted>" in caplog.text


@pytest.mark.parametrize(("answer", "delay"), [(3, 3.0), (Decimal("1.5"), 1.5), (0, 0.0), (1e30, 3650 * 86_400.0)])
async def test_strategies_may_answer_any_number(rig, autojump_clock, answer, delay):
    """Anything that is a number of seconds will do; more than ten years is ten years."""

    @task(name="failing", max_retries=1)
    async def failing() -> None:
        raise ValueError

    rig.listen("task_retry")
    await rig.enqueue(failing)
    async with rig.worker(failing, retry_strategy=Scripted(answer)):
        await trio.testing.wait_all_tasks_blocked()
    assert rig.event("task_retry").delay == delay


# --- time ---------------------------------------------------------------------------------------------------------


async def test_a_day_of_backoff(rig, ledger, autojump_clock):
    """Retries an hour and more apart come at their times; under the fake clock a day takes no time."""

    @task(name="patient", max_retries=20)
    async def patient(context: TaskContext) -> str:
        with ledger.run(context):
            if trio.current_time() < began + 86_400:
                raise ConnectionError
            return "at last"

    began = trio.current_time()
    handle = await rig.enqueue(patient)
    strategy = ExponentialJitterRetryStrategy(base=60, max=7200, seed=1)
    async with rig.worker(patient, retry_strategy=strategy, heartbeat_interval=3600) as worker:
        assert await handle.result() == "at last"
        assert await rig.places() in ((0, 0, 0, 0), (0, 0, 1, 0))
    assert 86_400 <= trio.current_time() - began <= 86_400 + 7200
    assert worker.totals["retried"] == len(ledger.runs) - 1
    assert ledger.ends == ["ConnectionError"] * (len(ledger.runs) - 1) + ["done"]
    gaps = [later.began - earlier.ended for earlier, later in pairwise(ledger.runs)]
    for attempt, gap in enumerate(gaps):
        full = min(60 * 2**attempt, 7200)
        assert full * 0.75 <= gap <= full


async def test_a_retry_holds_no_slot(rig, ledger, autojump_clock):
    """G9: a task that waits for its retry is with the broker, not with the worker, which goes on with others."""

    @task(name="failing", max_retries=1)
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            if context.attempt == 0:
                raise ValueError

    @task(name="other")
    async def other(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep(1)

    await rig.enqueue(failing)
    ids = await rig.enqueue_many(other, 10)
    async with rig.worker(failing, other, concurrency=1, prefetch=0, retry_strategy=FixedRetryStrategy(3600)) as worker:
        for task_id in ids:
            await rig.stem.wait_for_task(task_id, timeout=11)
        await trio.testing.wait_all_tasks_blocked()
        assert worker.in_flight == 0
        assert await rig.places() == (0, 1, 0, 0)
        await trio.sleep(3600)
        await trio.testing.wait_all_tasks_blocked()
    ledger.assert_exactly_once()


async def test_retries_survive_the_worker(rig, ledger, autojump_clock):
    """G1: a retry is durable the moment it is decided; another worker makes it, at its time."""

    @task(name="failing", max_retries=1)
    async def failing(context: TaskContext) -> None:
        with ledger.run(context):
            if context.attempt == 0:
                raise ValueError

    handle = await rig.enqueue(failing)
    async with rig.worker(failing, retry_strategy=FixedRetryStrategy(600)):
        await trio.testing.wait_all_tasks_blocked()
    assert await rig.places() == (0, 1, 0, 0)
    async with rig.worker(failing) as second:
        await handle.result(timeout=601)
    assert [(run.attempt, run.deliveries, run.worker) for run in ledger.runs][1:] == [(1, 2, second.id)]
    assert ledger.runs[1].began - ledger.runs[0].ended == pytest.approx(600)
