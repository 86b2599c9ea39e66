"""Tasks by where they are written: a module, or the dotted name of one, stands for the tasks in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Final, cast

from .errors import RegistrationError

__all__ = ["discover"]

_FORMS: Final = "write 'package.module' or 'package.module:attribute'"

IsTask = Callable[[object], bool]


def discover(sources: object, is_task: IsTask, is_class: IsTask) -> list[object]:
    """What is to be registered: modules and dotted names replaced by the tasks that they stand for.

    All of them are looked up before this returns, so that a bad one leaves nothing registered.

    Args:
        sources: the value of ``tasks=``.
        is_task: tells a task from any other object of a module.
        is_class: tells the class of a task, of which a module should have an instance.

    Raises:
        RegistrationError: a module cannot be imported, or has no tasks, or there is no such attribute.
    """
    if isinstance(sources, str | ModuleType) or not isinstance(sources, Iterable):
        shown = repr(sources) if isinstance(sources, str) else f"an object of type {type(sources).__name__}"
        raise RegistrationError(f"tasks must be a list of tasks, modules and dotted names, not {shown}; write [...]")
    found: list[object] = []
    for source in cast("Iterable[object]", sources):
        if isinstance(source, ModuleType):
            found += _in_module(source, source.__name__, is_task, is_class)
        elif isinstance(source, str):
            found += _by_name(source, is_task, is_class)
        else:
            found.append(source)
    return found


def _in_module(module: ModuleType, name: str, is_task: IsTask, is_class: IsTask) -> list[object]:
    # A namespace keeps the order in which its names were first bound; one task may have several of them.
    tasks = {id(value): value for value in vars(module).values() if is_task(value)}
    if tasks:
        return list(tasks.values())
    classes = [key for key, value in vars(module).items() if is_class(value) and value.__module__ == module.__name__]
    remedy = f"make an instance: {classes[0].lower()} = {classes[0]}()" if classes else "decorate functions with @task"
    raise RegistrationError(f"tasks: the module {name} has no tasks; {remedy}")


def _by_name(text: str, is_task: IsTask, is_class: IsTask) -> list[object]:
    name, colon, attribute = text.partition(":")
    parts = [*name.split("."), *(attribute.split(".") if colon else ())]
    if not all(part.isidentifier() for part in parts):
        raise RegistrationError(f"tasks: {text!r} is no dotted name; {_FORMS}")
    module = _import(name)
    if not colon:
        return _in_module(module, name, is_task, is_class)
    value: object = module
    for part in parts[len(name.split(".")) :]:
        try:
            value = getattr(value, part)
        except AttributeError as error:
            raise RegistrationError(f"tasks: {text!r}: {_kind(value)} has no attribute {part!r}") from error
    if isinstance(value, list | tuple):
        return _in_list(text, cast("Iterable[object]", value), is_task)
    if isinstance(value, ModuleType):
        return _in_module(value, text, is_task, is_class)
    if not is_task(value):
        remedy = "name an instance of it" if is_class(value) else "name a task, or a list of them"
        raise RegistrationError(f"tasks: {text!r} is {_kind(value)} and not a task; {remedy}")
    return [value]


def _in_list(text: str, values: Iterable[object], is_task: IsTask) -> list[object]:
    tasks = list(values)
    for position, value in enumerate(tasks):
        if not is_task(value):
            raise RegistrationError(f"tasks: {text!r} holds at {position} {_kind(value)}, which is not a task")
    if not tasks:
        raise RegistrationError(f"tasks: {text!r} is an empty list")
    return tasks


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The name may be missing, or something that the module itself imports.
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise RegistrationError(
                f"tasks: there is no module {name} (no {missing} found); {_FORMS}, and see to it that Python finds it"
            ) from error
        raise RegistrationError(f"tasks: importing {name} failed: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise RegistrationError(f"tasks: importing {name} failed: {type(error).__name__}: {error}") from error


def _kind(value: object) -> str:
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"an object of type {type(value).__name__}"
