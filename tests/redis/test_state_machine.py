"""Any history of the stores on Redis is the one that the model has."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from stem_trio.ids import new_task_id
from stem_trio.stores.redis import RedisBroker, RedisResultBackend
from tests.stores.state_machine import StoreMachine, StoresUnderTest

RETENTION = 1e6


SHORT = 0.5


class RedisMachine(StoreMachine):
    """Gives up examples in which more time has passed between two steps than the model knows of."""

    url: str
    late = False

    def __init__(self):
        super().__init__()
        self.since = time.monotonic()

    def pass_time(self, data):
        super().pass_time(data)
        self.since = time.monotonic()

    def call(self, function, *args, **options):
        result = super().call(function, *args, **options)
        # What is short may have ended by now; the model ends it in steps that pass time, and in no other.
        self.late = time.monotonic() - self.since > SHORT * 0.9
        assume(not self.late)
        return result

    def teardown(self):
        if self.late:
            self.stepper.close()
        else:
            super().teardown()

    @classmethod
    def open_stores(cls, stepper):
        prefix = f"machine-{new_task_id()}"
        return (
            stepper.enter(RedisBroker.connect(cls.url, prefix=prefix, dead_letter_retention=RETENTION)),
            stepper.enter(RedisResultBackend.connect(cls.url, prefix=prefix)),
        )


RedisMachine.stores = StoresUnderTest(
    open=RedisMachine.open_stores,
    clock=lambda: None,
    exact=False,
    durations=st.sampled_from([SHORT, 1000.0]),
    jumps=st.just(0.75),
    dead_letter_retention=RETENTION,
)


# About three seconds for each example; one that fails is made smaller, which takes more of them.
@pytest.mark.timeout(300)
class TestRedis(RedisMachine.TestCase):
    settings = settings(
        max_examples=6,
        stateful_step_count=35,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )

    @pytest.fixture(autouse=True)
    def server(self, redis_url):
        RedisMachine.url = redis_url
