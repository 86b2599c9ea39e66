"""Exception groups where one error would say it all."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["inner_error", "open_transparent_nursery", "raise_unchanged", "single_error"]


def single_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in a group, however deep, with its traceback as it was; the group itself if there are more.

    Nurseries wrap what escapes from them. That is right where several things may fail beside each other, and in the
    way where a caller wants to catch a certain error of one operation.
    """
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def inner_error(group: BaseExceptionGroup[BaseException], body: BaseException | None = None) -> BaseException:
    """The one exception that a nursery has wrapped, be it a group itself; the group if there are more.

    Args:
        group: what the nursery has raised.
        body: what its block has raised, if it has.
    """
    errors = list(group.exceptions)
    if len(errors) > 1:
        return group
    # Trio takes what its own cancellation has caused out of groups, and makes a new group of the rest even when there
    # was nothing to take out: its class, unless it provides for that, and its identity are lost. A block that raises
    # anything else than cancellations is among the errors for sure, hence is the one.
    if isinstance(body, BaseExceptionGroup) and body.split(trio.Cancelled)[0] is None:
        return body
    return errors[0]


def raise_unchanged(error: BaseException) -> NoReturn:
    """Raise an exception out of the group that it came in, with its own cause and context.

    ``raise error from None`` would wipe out the cause, which may be the only word about what has really happened, and
    ``raise error`` would put the group in place of the context.
    """
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context  # the traceback refers to this frame


@asynccontextmanager
async def open_transparent_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery that is nobody's business: what its block raises, or one of its tasks, comes out as it is.

    Several errors come out as the group that a nursery makes of them.
    """
    body: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                body = error
                raise
    except BaseExceptionGroup as group:
        raise_unchanged(inner_error(group, body))
    finally:
        del body  # its traceback refers to this frame
