"""Tasks: named units of work, as classes, as wrapped functions, or as functions under `task`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    cast,
    final,
    overload,
)

import attrs
import msgspec

from ._discover import discover
from .codec import ENCODE_ERRORS, encode
from .errors import (
    ArgumentsError,
    DuplicateTaskError,
    InvalidOptionError,
    RegistrationError,
    SerializationError,
    UnregisteredTaskError,
)
from .options import EffectiveOptions, Isolation, TaskOptions, Unset
from .retry import RetryPolicy
from .signature import FunctionSignature, decode_arguments, encode_arguments

if TYPE_CHECKING:
    from typing import Unpack

    from .context import TaskContext
    from .handle import TaskHandle

__all__ = [
    "AnyTask",
    "BoundTask",
    "CallOptions",
    "FunctionTaskHandler",
    "SupportsSubmit",
    "Task",
    "TaskCall",
    "TaskDefinition",
    "TaskHandler",
    "TaskRegistry",
    "TaskSource",
    "define",
    "make_call",
    "task",
]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
C = TypeVar("C")
P = ParamSpec("P")
Q = ParamSpec("Q")

_MAX_NAME: Final = 200


class CallOptions(TypedDict, total=False):
    """What a single call may say about itself, over what the task says. Options are those of `TaskOptions`.

    Further keys: `delay` (seconds or timedelta) or `eta` (aware datetime) for when it may start; `expires` also takes
    an aware datetime; `headers` (text to text), `meta` (any JSON object), and `task_id` for an id of the caller's
    own, which makes enqueueing idempotent: an id that is known already enqueues nothing.
    """

    options: TaskOptions
    queue: str
    priority: int
    max_retries: int
    visibility_timeout: float | timedelta
    soft_time_limit: float | timedelta | None
    hard_time_limit: float | timedelta | None
    expires: float | timedelta | datetime | None
    retry_policy: RetryPolicy | None
    max_strikes: int
    result_ttl: float | timedelta
    ignore_result: bool
    delay: float | timedelta
    eta: datetime
    headers: Mapping[str, str]
    meta: Mapping[str, Any]
    task_id: str


class TaskHandler(ABC, Generic[R_co]):
    """A task as a class: give it a name, options if need be, and a `call`.

    Attributes:
        name: what the task is known by, between producers and workers.
        options: its options.
    """

    name: str
    options: TaskOptions = TaskOptions()

    @abstractmethod
    def call(self, context: TaskContext, args: Mapping[str, Any]) -> Awaitable[R_co] | R_co:
        """Do the work. Write it ``async def``; a plain ``def`` runs in a thread.

        Args:
            context: this run.
            args: the arguments, as JSON gives them.

        Returns:
            The result; any value that JSON can hold.
        """


@final
class FunctionTaskHandler(TaskHandler[R_co]):
    """A task made of a function of context and arguments, async or (in a thread) sync.

    Args:
        name: what the task is known by.
        entrypoint: the function.
        options: options of the task.

    Raises:
        RegistrationError: entrypoint is not callable.
    """

    @overload
    def __init__(
        self: FunctionTaskHandler[R],
        name: str,
        entrypoint: Callable[[TaskContext, Mapping[str, Any]], Coroutine[Any, Any, R]],
        *,
        options: TaskOptions | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: FunctionTaskHandler[R],
        name: str,
        entrypoint: Callable[[TaskContext, Mapping[str, Any]], R],
        *,
        options: TaskOptions | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        entrypoint: Callable[[TaskContext, Mapping[str, Any]], Any],
        *,
        options: TaskOptions | None = None,
    ) -> None:
        if not callable(entrypoint):
            raise RegistrationError(f"task {name!r}: entrypoint must be a function of context and args")
        self.name = name
        self.options = options if options is not None else TaskOptions()
        self.entrypoint = entrypoint

    def __repr__(self) -> str:
        return f"FunctionTaskHandler({self.name!r})"

    def call(self, context: TaskContext, args: Mapping[str, Any]) -> Awaitable[R_co] | R_co:
        """Call the function."""
        result: Awaitable[R_co] | R_co = self.entrypoint(context, args)
        return result


@final
class TaskDefinition:
    """Any kind of task, as the runtime uses it.

    Attributes:
        name: name of the task.
        options: options as given.
        effective: options with their defaults.
        isolation: where it runs.
        takes_context: whether the handler wants a `TaskContext`.
        call: the handler, as a function of context (None where it takes none) and decoded arguments.
        source: what it was made from.
    """

    __slots__ = ("_signature", "call", "effective", "isolation", "name", "options", "source", "takes_context")

    def __init__(
        self,
        source: object,
        name: str,
        options: TaskOptions,
        call: Callable[[TaskContext | None, Any], Any],
        signature: FunctionSignature | None,
        *,
        is_async: bool,
    ) -> None:
        self.source: Final = source
        self.name: Final = _check_name(name)
        if not isinstance(options, TaskOptions):
            raise RegistrationError(f"task {name!r}: options must be TaskOptions, not {type(options).__name__}")
        self.options: Final = options
        self.effective: Final = options.effective()
        self.isolation: Final[Isolation] = _isolation(name, self.effective.isolation, is_async=is_async)
        self.call: Final = call
        self._signature = signature
        self.takes_context: Final = signature is None or signature.takes_context

    def __repr__(self) -> str:
        return f"<TaskDefinition {self.name}>"

    def encode(self, args: Mapping[str, Any]) -> bytes:
        """Arguments by name as JSON, once they are seen to fit the signature, where there is one."""
        return encode_arguments(self.name, args) if self._signature is None else self._signature.encode(args)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Arguments of a call as JSON, once they are seen to fit."""
        if self._signature is None:
            raise ArgumentsError(self.name, None, "are given by name, as one mapping: the task has no signature")
        return self._signature.bind(args, kwargs)

    def decode(self, raw: msgspec.Raw) -> Any:
        """Arguments for `call`. Raises ArgumentsError."""
        return decode_arguments(self.name, _object, raw) if self._signature is None else self._signature.decode(raw)

    def decode_result(self, raw: msgspec.Raw) -> Any:
        """A stored result as what the handler is annotated to return. Raises msgspec.DecodeError."""
        return msgspec.json.decode(raw) if self._signature is None else self._signature.decode_result(raw)


_object: Final = msgspec.json.Decoder(dict[str, Any])


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not name or not name.isprintable() or name != name.strip():
        raise RegistrationError(f"task name {name!r}: must be a non-empty printable string without blanks around it")
    if len(name) > _MAX_NAME:
        raise RegistrationError(f"task name {name[:20]!r}...: must have at most {_MAX_NAME} characters")
    return str.__str__(name)  # of an enum that is text, its text: that is what travels


def _isolation(name: str, asked: Isolation | None, *, is_async: bool) -> Isolation:
    if asked == "thread" and is_async:
        raise RegistrationError(f"task {name!r}: an async function cannot run in a thread; leave isolation out")
    return asked or ("inline" if is_async else "thread")


@final
class TaskCall(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """One call to a task, checked and encoded, not yet enqueued. Made by `Task.bind` or `Stem.call`.

    Attributes:
        definition: the task.
        args: its arguments as JSON.
        options: the task's options with the call's over them.
        delay: seconds until it may start, or None.
        eta: moment at which it may start, or None.
        expires_at: moment at which it expires, or None.
        headers: headers.
        meta: meta as JSON.
        task_id: the caller's own id, or None.
    """

    definition: TaskDefinition
    args: bytes
    options: EffectiveOptions
    delay: float | timedelta | None = None
    eta: datetime | None = None
    expires_at: datetime | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    meta: bytes = b"{}"
    task_id: str | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.definition.name


def make_call(definition: TaskDefinition, args: bytes, call: CallOptions) -> TaskCall[Any]:
    """Check what a call says about itself.

    Raises:
        InvalidOptionError: an option is unknown, illegal, or not one that a single call can set.
        SerializationError: headers are not text, or meta is no JSON object.
    """
    if not call:
        return TaskCall(definition=definition, args=args, options=definition.effective)
    rest: dict[str, Any] = dict(call)
    base = rest.pop("options", None)
    if base is not None and not isinstance(base, TaskOptions):
        raise InvalidOptionError("options", base, "must be TaskOptions")
    fields: dict[str, Any] = {name: rest.pop(name) for name in _CALL_FIELDS if name in rest}
    expires = rest.get("expires")
    if hasattr(expires, "tzinfo"):
        fields["expires_at"] = rest.pop("expires")
    if unknown := rest.keys() - _CALL_OPTION_NAMES:
        raise InvalidOptionError(min(unknown), rest[min(unknown)], "is not an option of a call")
    over = TaskOptions(**rest)
    if base is not None:
        over = base.merge(over)
    if not isinstance(over.isolation, Unset):
        raise InvalidOptionError("isolation", over.isolation, "belongs to the task, not to a single call")
    policy = over.retry_policy
    if isinstance(policy, RetryPolicy) and policy.filters:
        raise InvalidOptionError(
            "retry_policy", policy, "retry_on and never_retry belong to the task: classes do not travel"
        )
    if "headers" in fields:
        fields["headers"] = _check_headers(fields["headers"])
    if "meta" in fields:
        fields["meta"] = _encode_meta(fields["meta"])
    if fields.get("task_id") is not None:
        _check_task_id(fields["task_id"])
    options = definition.options.merge(over).effective() if over.items() else definition.effective
    return TaskCall(definition=definition, args=args, options=options, **fields)


_CALL_FIELDS: Final = ("delay", "eta", "headers", "meta", "task_id")
_CALL_OPTION_NAMES: Final = frozenset(CallOptions.__annotations__) - {*_CALL_FIELDS, "options"}


def _check_headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise SerializationError("headers", "must be a mapping of text to text")
    checked: dict[str, str] = {}
    for key, value in cast("Mapping[object, object]", headers).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise SerializationError(f"headers[{key!r}]", "name and value must be text")
        checked[key] = value
    try:
        encode(checked)
    except ENCODE_ERRORS as error:
        raise SerializationError("headers", str(error)) from error
    return checked


def _encode_meta(meta: object) -> bytes:
    if not isinstance(meta, Mapping):
        raise SerializationError("meta", "must be a mapping with text as keys")
    named = dict(cast("Mapping[object, object]", meta))
    if not all(isinstance(key, str) for key in named):
        raise SerializationError("meta", "must be a mapping with text as keys")
    try:
        return encode(named)
    except ENCODE_ERRORS as error:
        raise SerializationError("meta", str(error)) from error


def _check_task_id(task_id: object) -> None:
    if not isinstance(task_id, str) or not task_id or not task_id.isprintable() or len(task_id) > _MAX_NAME:
        raise InvalidOptionError("task_id", task_id, f"must be printable text of 1 to {_MAX_NAME} characters")


class SupportsSubmit(Protocol):
    """What tasks can be enqueued on: `Stem`, `StemClient`, `StemApp`, `TaskContext`."""

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        """Enqueue a call."""
        ...


@final
class BoundTask(Generic[P, R]):
    """A task together with options for the calls made through it. Made by `Task.with_options`."""

    __slots__ = ("_call", "_task")

    def __init__(self, task: Task[Any, P, Any, R], call: CallOptions) -> None:
        self._task = task
        self._call = call

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskCall[R]:
        """As `Task.bind`."""
        definition = self._task.definition
        return make_call(definition, definition.bind(args, kwargs), self._call)

    async def enqueue(self, stem: SupportsSubmit, /, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """As `Task.enqueue`."""
        return await stem.submit(self.bind(*args, **kwargs))


@final
class Task(Generic[Q, P, C, R]):
    """A function under `task`: still callable as itself, and enqueueable with checked arguments.

    Attributes:
        name: name of the task.
        options: its options.
        function: the function.
    """

    def __init__(self, function: Callable[Q, C], name: str | None, options: TaskOptions) -> None:
        module, qualname = getattr(function, "__module__", "?"), getattr(function, "__qualname__", repr(function))
        self.function: Final = function
        self.name: Final = _check_name(name if name is not None else f"{module}:{qualname}")
        self.options: Final = options
        self._definition: TaskDefinition | None = None
        # What inspect, help() and test tools look for on a wrapper.
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self.__module__ = module
        self.__name__ = getattr(function, "__name__", self.name)
        self.__qualname__ = qualname
        # An annotation may name what this module, or one that it imports, defines later: `definition` tries again.
        with suppress(NameError, AttributeError):
            self._definition = self._define()

    def _define(self) -> TaskDefinition:
        signature = FunctionSignature(self.name, self.function)
        is_async = _is_async(self.function)
        return TaskDefinition(self, self.name, self.options, signature.call, signature, is_async=is_async)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, /, *args: Q.args, **kwargs: Q.kwargs) -> C:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    @property
    def definition(self) -> TaskDefinition:
        """The task as the runtime uses it.

        Raises:
            RegistrationError: an annotation cannot be resolved.
        """
        if self._definition is None:
            try:
                self._definition = self._define()
            except (NameError, AttributeError) as error:
                raise RegistrationError(
                    f"task {self.name!r}: an annotation cannot be resolved: {error}; "
                    "import it at run time, not for type checkers only"
                ) from error
        return self._definition

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskCall[R]:
        """A call to the task, checked and encoded, for `Stem.enqueue_many` or `Stem.submit`.

        Raises:
            ArgumentsError: the arguments do not fit; the error names the argument.
        """
        return make_call(self.definition, self.definition.bind(args, kwargs), {})

    async def enqueue(self, stem: SupportsSubmit, /, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Enqueue a call to the task.

        Args:
            stem: a `Stem`, `StemClient` or `StemApp`, or the `TaskContext` of the task that becomes its parent.
            args: arguments of the function, without its context.
            kwargs: the same by name.

        Raises:
            ArgumentsError: the arguments do not fit; the error names the argument.
            EnqueueError: see `Stem.enqueue`.
            StoreError: see `Stem.enqueue`.

        Cancellation: as `Stem.enqueue`.
        """
        return await stem.submit(self.bind(*args, **kwargs))

    def with_options(self, **options: Unpack[CallOptions]) -> BoundTask[P, R]:
        """The task with options for single calls: delay, priority, queue, task_id ...; see `CallOptions`.

        Raises:
            InvalidOptionError: at the call made through it, when an option is not legal.
        """
        return BoundTask(self, options)


class _TaskDecorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
    ) -> Task[Concatenate[TaskContext, P], P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], R], /
    ) -> Task[Concatenate[TaskContext, P], P, R, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, P, R, R]: ...


@overload
def task(
    function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
) -> Task[Concatenate[TaskContext, P], P, Coroutine[Any, Any, R], R]: ...
@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, P, Coroutine[Any, Any, R], R]: ...
@overload
def task(function: Callable[Concatenate[TaskContext, P], R], /) -> Task[Concatenate[TaskContext, P], P, R, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, P, R, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    options: TaskOptions | None = None,
    queue: str = ...,
    max_retries: int = ...,
    priority: int = ...,
    visibility_timeout: float | timedelta = ...,
    soft_time_limit: float | timedelta | None = ...,
    hard_time_limit: float | timedelta | None = ...,
    expires: float | timedelta | None = ...,
    retry_policy: RetryPolicy | None = ...,
    max_strikes: int = ...,
    result_ttl: float | timedelta = ...,
    ignore_result: bool = ...,
    isolation: Isolation = ...,
) -> _TaskDecorator: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    options: TaskOptions | None = None,
    **fields: Any,
) -> Any:
    """Make a task of a function, with or without parentheses.

    A parameter annotated `TaskContext` gets the run's context and is not an argument of the task. All others are; their
    annotations say what JSON is decoded into (msgspec's types: dataclasses, attrs classes, Structs, datetime, UUID,
    Decimal, Enum, bytes, and paths). A sync function runs in a thread.

    Args:
        function: the function.
        name: name of the task; by default ``module:qualname``.
        options: its options.
        fields: single options, over `options`; see `TaskOptions`.

    Raises:
        RegistrationError: the signature cannot be carried by JSON; the message names the parameter.
        InvalidOptionError: an option is not legal.
    """
    if unknown := fields.keys() - _OPTION_NAMES:
        raise InvalidOptionError(min(unknown), fields[min(unknown)], "is not a task option")
    if options is None:
        options = TaskOptions()
    elif not isinstance(options, TaskOptions):
        raise InvalidOptionError("options", options, "must be TaskOptions")
    merged = options.merge(TaskOptions(**fields))

    def decorate(function: Callable[..., Any]) -> Task[..., ..., Any, Any]:
        if not callable(function):
            raise RegistrationError(f"@task needs a function, not {function!r}")
        return Task(function, name, merged)

    return decorate if function is None else decorate(function)


_OPTION_NAMES: Final = frozenset(field.name for field in attrs.fields(TaskOptions))

AnyTask = TaskHandler[Any] | Task[..., ..., Any, Any]
"""What can be registered."""

TaskSource = AnyTask | ModuleType | str
"""What ``tasks=`` takes: a task, a module for all tasks in it, or the dotted name of either.

A dotted name is ``"package.module"``, or ``"package.module:attribute"`` for one task, or a list of them. The tasks of a
module are those in its namespace, imported ones too, in the order in which they were defined.
"""


def define(source: AnyTask) -> TaskDefinition:
    """The definition of a handler, or of a function under `task`.

    Raises:
        RegistrationError: it is neither, or not complete.
    """
    if isinstance(source, Task):
        return source.definition
    if isinstance(source, type) and issubclass(source, TaskHandler):
        raise RegistrationError(f"{source.__qualname__} is a class; pass an instance: {source.__qualname__}()")
    if isinstance(source, TaskHandler):
        name = getattr(source, "name", None)
        if name is None:
            raise RegistrationError(f"{type(source).__qualname__} has no name; set the class attribute 'name'")
        function = source.entrypoint if isinstance(source, FunctionTaskHandler) else source.call
        # Without a signature, `takes_context` is true: the context is never None.
        call = cast("Callable[[TaskContext | None, Any], Any]", source.call)
        return TaskDefinition(source, name, source.options, call, None, is_async=_is_async(function))
    raise RegistrationError(f"{source!r} is not a task; decorate the function with @task, or use a TaskHandler")


# Not isinstance, which asks the object for its class: a module may hold proxies that cannot answer when it is imported.
def _is_task(value: object) -> bool:
    return issubclass(type(value), Task | TaskHandler)


def _is_task_class(value: object) -> bool:
    return (
        issubclass(type(value), type) and issubclass(cast("type", value), TaskHandler) and not inspect.isabstract(value)
    )


def _is_async(function: Callable[..., Any]) -> bool:
    # An object with an async __call__ is as async as a function.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


@final
class TaskRegistry:
    """Tasks by name.

    Args:
        tasks: what to register: tasks, modules, dotted names; see `register_all`.

    Raises:
        DuplicateTaskError: two of them have the same name.
        RegistrationError: one is no task, or a module has none or cannot be imported.
    """

    def __init__(self, tasks: Iterable[TaskSource] = ()) -> None:
        self._tasks: dict[str, TaskDefinition] = {}
        self.register_all(tasks)

    def register_all(self, tasks: Iterable[TaskSource]) -> list[TaskDefinition]:
        """Add tasks; a module, or the dotted name of one, stands for every task in its namespace.

        A dotted name is ``"package.module"``, or ``"package.module:attribute"`` for one task, or a list of them.

        Returns:
            What they were, in their order; those of a module in the order in which it defines them.

        Raises:
            DuplicateTaskError: two of them have the same name.
            RegistrationError: one is no task; a module has none, or cannot be imported; there is no such attribute.
        """
        return [self.register(cast("AnyTask", source)) for source in discover(tasks, _is_task, _is_task_class)]

    def register(self, source: AnyTask) -> TaskDefinition:
        """Add a task. Adding the very same one again is no error.

        Raises:
            DuplicateTaskError: another task has its name.
            RegistrationError: it is no task.
        """
        definition = define(source)
        present = self._tasks.get(definition.name)
        if present is not None:
            if present.source is source:
                return present
            raise DuplicateTaskError(definition.name)
        self._tasks[definition.name] = definition
        return definition

    def get(self, name: str) -> TaskDefinition | None:
        """The task of this name, or None."""
        return self._tasks.get(name)

    def resolve(self, name: str) -> TaskDefinition:
        """The task of this name.

        Raises:
            UnregisteredTaskError: there is none.
        """
        definition = self._tasks.get(name)
        if definition is None:
            raise UnregisteredTaskError(name, self._tasks)
        return definition

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[TaskDefinition]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)
