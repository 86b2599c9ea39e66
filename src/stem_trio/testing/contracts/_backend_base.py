"""What the tests of a result backend share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ...ids import new_task_id
from ._base import StoreContract

if TYPE_CHECKING:
    from ...abc import ResultBackend
    from ...status import TaskStatus

__all__ = ["BackendTests"]


class BackendTests(StoreContract):
    """Fixtures and the steps that most tests are made of."""

    @pytest.fixture
    def another_backend(self, backend: ResultBackend) -> ResultBackend:
        """A second connection to the same store, as another process would have. Default: the same object."""
        return backend

    @pytest.fixture
    def task_id(self) -> str:
        """The id of a task that nobody else uses."""
        return new_task_id()

    async def write(self, backend: ResultBackend, *statuses: TaskStatus) -> None:
        """Record statuses, none of which may be refused."""
        assert await backend.record(statuses) == [True] * len(statuses)
