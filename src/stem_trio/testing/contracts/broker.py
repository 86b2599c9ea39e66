"""The contract of brokers as a test suite."""

from __future__ import annotations

from ._broker_channels import ChannelTests
from ._broker_dead import DeadLetterTests
from ._broker_delivery import DeliveryTests
from ._broker_leases import LeaseTests
from ._broker_names import NameTests
from ._broker_order import OrderTests
from ._broker_removal import RemovalTests
from ._broker_waiting import WaitingTests

__all__ = ["BrokerContract"]


class BrokerContract(
    DeliveryTests,
    LeaseTests,
    WaitingTests,
    OrderTests,
    RemovalTests,
    DeadLetterTests,
    ChannelTests,
    NameTests,
):
    """Everything that `stem_trio.abc.Broker` promises.

    A subclass brings the fixture ``broker``, an open store. It may bring ``another_broker`` too: a second connection to
    the same content, as another process would have it; by default both are one object.

    The docstring of each test says what is guaranteed. G1 to G16 are the guarantees of this project, B1 to B16 the
    tests that the original, Stem for Dart, has for its brokers.
    """
