"""The worker and its parts, one role a file."""

from __future__ import annotations

from .lifecycle import ShutdownMode, WorkerLifecycleConfig, WorkerState
from .worker import Worker

__all__ = ["ShutdownMode", "Worker", "WorkerLifecycleConfig", "WorkerState"]
