"""Exception groups where one error would say it all."""

from __future__ import annotations

__all__ = ["inner_error", "single_error"]


def single_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in a group, however deep, with its traceback as it was; the group itself if there are more.

    Nurseries wrap what escapes from them. That is right where several things may fail beside each other, and in the
    way where a caller wants to catch a certain error of one operation.
    """
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def inner_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that a nursery has wrapped, be it a group itself; the group if there are more."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group
