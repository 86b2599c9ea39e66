"""Background tasks on trio: lost by nobody, cancelled properly, tested in milliseconds."""

from __future__ import annotations

from .abc import Broker, ResultBackend, RetryStrategy
from .app import StemApp
from .client import StemClient
from .clock import SystemClock, TrioClock, WallClock
from .context import TaskContext
from .envelope import DeadLetter, Delivery, Envelope, Lease, QueueStats
from .errors import (
    ArgumentsError,
    ConfigurationError,
    DuplicateTaskError,
    EnqueueError,
    HardTimeLimitError,
    InvalidOptionError,
    InvalidScheduleError,
    LeaseLostError,
    PayloadTooLargeError,
    RegistrationError,
    ResultDecodeError,
    ResultError,
    SerializationError,
    SoftTimeLimitError,
    StemError,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskFailedError,
    TaskRetryRequest,
    TaskRevokedError,
    UnknownTaskError,
    UnregisteredTaskError,
    WaitTimeoutError,
    WorkerError,
    WorkerStateError,
)
from .handle import TaskHandle
from .options import UNSET, TaskOptions
from .outcome import DeadLetterReason
from .producer import Stem
from .retry import ExponentialJitterRetryStrategy, FixedRetryStrategy, RetryPolicy
from .signals import Signal, SignalConnection, StemSignals
from .status import Progress, TaskError, TaskResult, TaskState, TaskStatus, WorkerHeartbeat
from .stores.memory import InMemoryBroker, InMemoryResultBackend
from .task import CallOptions, FunctionTaskHandler, Task, TaskCall, TaskHandler, TaskRegistry, task
from .worker import ShutdownMode, Worker, WorkerLifecycleConfig, WorkerState

__all__ = [
    "UNSET",
    "ArgumentsError",
    "Broker",
    "CallOptions",
    "ConfigurationError",
    "DeadLetter",
    "DeadLetterReason",
    "Delivery",
    "DuplicateTaskError",
    "EnqueueError",
    "Envelope",
    "ExponentialJitterRetryStrategy",
    "FixedRetryStrategy",
    "FunctionTaskHandler",
    "HardTimeLimitError",
    "InMemoryBroker",
    "InMemoryResultBackend",
    "InvalidOptionError",
    "InvalidScheduleError",
    "Lease",
    "LeaseLostError",
    "PayloadTooLargeError",
    "Progress",
    "QueueStats",
    "RegistrationError",
    "ResultBackend",
    "ResultDecodeError",
    "ResultError",
    "RetryPolicy",
    "RetryStrategy",
    "SerializationError",
    "ShutdownMode",
    "Signal",
    "SignalConnection",
    "SoftTimeLimitError",
    "Stem",
    "StemApp",
    "StemClient",
    "StemError",
    "StemSignals",
    "StoreClosedError",
    "StoreError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "SystemClock",
    "Task",
    "TaskCall",
    "TaskContext",
    "TaskError",
    "TaskExpiredError",
    "TaskFailedError",
    "TaskHandle",
    "TaskHandler",
    "TaskOptions",
    "TaskRegistry",
    "TaskResult",
    "TaskRetryRequest",
    "TaskRevokedError",
    "TaskState",
    "TaskStatus",
    "TrioClock",
    "UnknownTaskError",
    "UnregisteredTaskError",
    "WaitTimeoutError",
    "WallClock",
    "Worker",
    "WorkerError",
    "WorkerHeartbeat",
    "WorkerLifecycleConfig",
    "WorkerState",
    "WorkerStateError",
    "task",
]
