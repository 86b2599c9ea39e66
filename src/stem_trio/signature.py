"""From a function's signature to the shape of its arguments: checked when enqueued, decoded once when run."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from .codec import ENCODE_ERRORS, encode, find_unsupported, make_decoder
from .context import TaskContext
from .errors import ArgumentsError, RegistrationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FunctionSignature", "arguments_error", "decode_arguments", "encode_arguments"]

_MISSING: Final = msgspec.UNSET
_PATH: Final = re.compile(r" - at (?:`key` in )?`\$\.(\w+)[^`]*`$")
_FIELD: Final = re.compile(r"^Object (?:missing required|contains unknown) field `(\w+)`")


def arguments_error(task: str, error: msgspec.ValidationError) -> ArgumentsError:
    """Name the argument that a decoder has complained about."""
    text = str(error)
    # Only the end of the text is msgspec's own; what comes before may quote the value.
    if match := _PATH.search(text):
        return ArgumentsError(task, match[1], text)
    if match := _FIELD.search(text):
        problem = "is missing" if "missing" in match[0] else "is not an argument of this task"
        return ArgumentsError(task, match[1], problem)
    return ArgumentsError(task, None, text)


@final
class FunctionSignature:
    """What a task function takes and returns.

    Args:
        task: name of the task, for messages.
        function: the function.

    Raises:
        RegistrationError: the signature cannot be carried by JSON; the message names the parameter.
        NameError: an annotation refers to a name that is not defined (yet).
        AttributeError: an annotation refers to a module's attribute that is not defined (yet).

    Attributes:
        takes_context: whether a parameter is annotated with `TaskContext`.
    """

    __slots__ = (
        "_context",
        "_decoder",
        "_function",
        "_max_positional",
        "_names",
        "_plain",
        "_positional",
        "_result",
        "_task",
        "takes_context",
    )

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        try:
            # TaskContext is resolved even when the module imports it for type checkers only.
            hints = typing.get_type_hints(function, localns={"TaskContext": TaskContext}, include_extras=True)
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError, SyntaxError) as error:
            raise RegistrationError(f"task {task!r}: its signature cannot be read: {error}") from error
        fields: list[tuple[str, Any, Any] | tuple[str, Any]] = []
        self._task = task
        self._function = function
        self._context: str | None = None
        self._positional: list[tuple[str, Any]] = []
        self._plain = True
        self._max_positional = 0
        for name, parameter in parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise RegistrationError(
                    f"task {task!r}: *{name} cannot be checked; name the parameters, or use a FunctionTaskHandler"
                )
            kind = hints.get(name, Any)
            if kind is TaskContext or TaskContext in typing.get_args(kind):  # or one of a union, or annotated
                if self._context is not None:
                    raise RegistrationError(f"task {task!r}: two parameters ({self._context}, {name}) are contexts")
                self._context = name
                self._plain = not fields and parameter.kind is not parameter.KEYWORD_ONLY
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    self._positional.append((name, None))
                continue
            self._check(f"parameter {name!r}", kind)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                self._positional.append((name, parameter.default))
            if parameter.kind is not parameter.KEYWORD_ONLY:
                self._max_positional += 1
            self._plain = (
                self._plain and parameter.kind is not parameter.KEYWORD_ONLY and parameter.default is parameter.empty
            )
            # A default is left to the function itself, so that it is evaluated where the task runs.
            fields.append((name, kind) if parameter.default is parameter.empty else (name, kind, _MISSING))
        self.takes_context: Final = self._context is not None
        self._names = tuple(field[0] for field in fields)
        required = [field for field in fields if len(field) == 2]
        optional = [field for field in fields if len(field) == 3]
        arguments = msgspec.defstruct("Arguments", [*required, *optional], forbid_unknown_fields=True)
        self._decoder = make_decoder(arguments)
        returns = hints.get("return", Any)
        self._check("the return value", returns)
        self._result = make_decoder(returns)

    def _check(self, what: str, kind: Any) -> None:
        try:
            unsupported = find_unsupported(kind)
        except TypeError as error:
            raise RegistrationError(f"task {self._task!r}: {what}: {error}") from error
        if unsupported is not None:
            raise RegistrationError(
                f"task {self._task!r}: {what}: {unsupported.__qualname__} cannot be carried as JSON; "
                "use a dataclass, an attrs class, a msgspec Struct or a built-in type"
            )

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Encode a call's arguments, once they are seen to fit.

        Raises:
            ArgumentsError: they do not; the error names the argument.
        """
        if len(args) > self._max_positional:
            raise ArgumentsError(
                self._task, None, f"{len(args)} positional arguments given, it takes at most {self._max_positional}"
            )
        named = dict(zip(self._names, args, strict=False))
        for name, value in kwargs.items():
            if name in named:
                raise ArgumentsError(self._task, name, "is given twice")
            named[name] = value
        raw = _encode_named(self._task, named)
        self.decode(raw)
        return raw

    def encode(self, named: Mapping[str, Any]) -> bytes:
        """Encode arguments given by name, once they are seen to fit. Raises as `bind` does."""
        raw = encode_arguments(self._task, named)
        self.decode(raw)
        return raw

    def decode(self, raw: bytes | msgspec.Raw) -> Any:
        """The arguments as the function wants them, in a form for `call`.

        Raises:
            ArgumentsError: they do not fit; the error names the argument.
        """
        return decode_arguments(self._task, self._decoder, raw)

    def call(self, context: TaskContext | None, arguments: Any) -> Any:
        """Call the function."""
        if self._plain:
            values = msgspec.structs.astuple(arguments)
            return self._function(context, *values) if self._context is not None else self._function(*values)
        named = {name: value for name in self._names if (value := getattr(arguments, name)) is not _MISSING}
        if self._context is not None:
            named[self._context] = context
        # A default takes the place of what is left out before a positional-only argument that is given.
        positional = [named.pop(name, default) for name, default in self._positional]
        return self._function(*positional, **named)

    def decode_result(self, raw: bytes | msgspec.Raw) -> Any:
        """A stored result as the type that the function is annotated to return. Raises `msgspec.DecodeError`."""
        return self._result.decode(raw)


def decode_arguments(task: str, decoder: msgspec.json.Decoder[Any], raw: bytes | msgspec.Raw) -> Any:
    """Decode arguments.

    Raises:
        ArgumentsError: they do not fit, or are no JSON; the error names the argument where it can.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise arguments_error(task, error) from error
    except Exception as error:  # other than msgspec's: nested too deeply, not UTF-8, or from the types of the task
        raise ArgumentsError(task, None, str(error) or type(error).__name__) from error


def encode_arguments(task: str, named: Mapping[str, Any]) -> bytes:
    """Encode arguments given by name.

    Raises:
        ArgumentsError: they are no mapping with text as keys, or a value cannot be represented as JSON.
    """
    if not isinstance(named, Mapping):
        raise ArgumentsError(task, None, f"must be a mapping of names to values, not {type(named).__name__}")
    if not all(isinstance(name, str) for name in named):
        raise ArgumentsError(task, None, "names must be text")
    return _encode_named(task, dict(named))


def _encode_named(task: str, named: dict[str, Any]) -> bytes:
    try:
        return encode(named)
    except ENCODE_ERRORS as error:
        for name, value in named.items():
            try:
                encode(value)
            except ENCODE_ERRORS as reason:
                raise ArgumentsError(task, name, str(reason)) from reason
        raise ArgumentsError(task, None, str(error)) from error
