"""Background tasks on trio: lost by nobody, cancelled properly, tested in milliseconds."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    InvalidEnvironmentError,
    InvalidOptionError,
    InvalidScheduleError,
    LeaseLostError,
    PayloadTooLargeError,
    RegistrationError,
    ResultDecodeError,
    ResultError,
    SerializationError,
    SignatureInvalidError,
    SigningError,
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
from .task import CallOptions, FunctionTaskHandler, Task, TaskCall, TaskHandler, TaskRegistry, task
from .worker import ShutdownMode, Worker, WorkerLifecycleConfig, WorkerState

if TYPE_CHECKING:
    from .config import StemConfig, TlsConfig, UnknownVariableWarning
    from .integrations import AsyncioStem, BlockingStem
    from .signing import PayloadSigner, SigningConfig, SigningKey
    from .stores.adapters import StemRedisAdapter, StemStoreAdapter
    from .stores.memory import InMemoryBroker, InMemoryResultBackend
    from .stores.redis import RedisBroker, RedisResultBackend, RedisStreamsBroker
    from .stores.sqlite import SqliteBroker, SqliteResultBackend
    from .stores.url import StemStoreOverrides, open_backend, open_broker

__all__ = [
    "UNSET",
    "ArgumentsError",
    "AsyncioStem",
    "BlockingStem",
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
    "InvalidEnvironmentError",
    "InvalidOptionError",
    "InvalidScheduleError",
    "Lease",
    "LeaseLostError",
    "PayloadSigner",
    "PayloadTooLargeError",
    "Progress",
    "QueueStats",
    "RedisBroker",
    "RedisResultBackend",
    "RedisStreamsBroker",
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
    "SignatureInvalidError",
    "SigningConfig",
    "SigningError",
    "SigningKey",
    "SoftTimeLimitError",
    "SqliteBroker",
    "SqliteResultBackend",
    "Stem",
    "StemApp",
    "StemClient",
    "StemConfig",
    "StemError",
    "StemRedisAdapter",
    "StemSignals",
    "StemStoreAdapter",
    "StemStoreOverrides",
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
    "TlsConfig",
    "TrioClock",
    "UnknownTaskError",
    "UnknownVariableWarning",
    "UnregisteredTaskError",
    "WaitTimeoutError",
    "WallClock",
    "Worker",
    "WorkerError",
    "WorkerHeartbeat",
    "WorkerLifecycleConfig",
    "WorkerState",
    "WorkerStateError",
    "open_backend",
    "open_broker",
    "task",
]

_LAZY = {
    **dict.fromkeys(("RedisBroker", "RedisResultBackend", "RedisStreamsBroker"), "stem_trio.stores.redis"),
    **dict.fromkeys(("SqliteBroker", "SqliteResultBackend"), "stem_trio.stores.sqlite"),
    **dict.fromkeys(("AsyncioStem", "BlockingStem"), "stem_trio.integrations"),
    **dict.fromkeys(("InMemoryBroker", "InMemoryResultBackend"), "stem_trio.stores.memory"),
    **dict.fromkeys(("PayloadSigner", "SigningConfig", "SigningKey"), "stem_trio.signing"),
    **dict.fromkeys(("StemConfig", "TlsConfig", "UnknownVariableWarning"), "stem_trio.config"),
    **dict.fromkeys(("StemRedisAdapter", "StemStoreAdapter"), "stem_trio.stores.adapters"),
    **dict.fromkeys(("StemStoreOverrides", "open_backend", "open_broker"), "stem_trio.stores.url"),
}
"""What needs an extra, or more than a program on trio, or what many workers never use: imported when first asked for.

A worker's memory is mostly what it has imported; there may be dozens of them on a machine.
"""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value
