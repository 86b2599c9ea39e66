"""Any history of the stores on Redis is the one that the model has."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from stem_trio.ids import new_task_id
from stem_trio.stores.redis import RedisBroker, RedisResultBackend
from tests.stores.state_machine import StoreMachine, StoresUnderTest

RETENTION = 1e6


class RedisMachine(StoreMachine):
    url: str

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
    durations=st.sampled_from([0.5, 1000.0]),
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
        suppress_health_check=[HealthCheck.too_slow],
    )

    @pytest.fixture(autouse=True)
    def server(self, redis_url):
        RedisMachine.url = redis_url
