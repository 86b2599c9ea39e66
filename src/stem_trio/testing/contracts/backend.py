"""The contract of result backends as a test suite."""

from __future__ import annotations

from ._backend_heartbeats import HeartbeatTests
from ._backend_statuses import StatusTests
from ._backend_watch import WatchTests

__all__ = ["ResultBackendContract"]


class ResultBackendContract(StatusTests, WatchTests, HeartbeatTests):
    """Everything that `stem_trio.abc.ResultBackend` promises.

    A subclass brings the fixture ``backend``, an open store. It may bring ``another_backend`` too: a second connection
    to the same content, as another process would have it; by default both are one object.

    The docstring of each test says what is guaranteed. G1 to G16 are the guarantees of this project, R1 to R15 the
    tests that the original, Stem for Dart, has for its backends.
    """
