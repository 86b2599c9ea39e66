"""The contracts of `stem_trio.abc` as test suites, for everybody who writes a store.

Subclass a suite, and give it the one async fixture it asks for, an open store::

    class TestMyBroker(BrokerContract):
        @pytest.fixture
        async def broker(self):
            async with MyBroker(...) as broker:
                yield broker

Each test names in its docstring what is guaranteed. Tests use queues and ids of their own, so a store may keep its
content from one test to the next. They need pytest-trio. They run on the real clock, with the lengths set by the
attributes of `StoreContract`; where ``fake_clock`` is set to True, they take no time.
"""

from __future__ import annotations

import pytest

# Before the modules are imported: lets a failing assert in them show what it compared.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "_backend_base",
            "_backend_heartbeats",
            "_backend_statuses",
            "_backend_watch",
            "_base",
            "_broker_base",
            "_broker_channels",
            "_broker_dead",
            "_broker_delivery",
            "_broker_leases",
            "_broker_names",
            "_broker_order",
            "_broker_removal",
            "_broker_waiting",
            "backend",
            "broker",
            "joint",
        )
    )
)

from ._base import StoreContract  # noqa: E402 - see above
from ._make import make_envelope, make_heartbeat, make_status  # noqa: E402
from .backend import ResultBackendContract  # noqa: E402
from .broker import BrokerContract  # noqa: E402
from .joint import JointStoreContract  # noqa: E402

__all__ = [
    "BrokerContract",
    "JointStoreContract",
    "ResultBackendContract",
    "StoreContract",
    "make_envelope",
    "make_heartbeat",
    "make_status",
]
