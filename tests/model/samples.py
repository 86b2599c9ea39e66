"""Task functions whose annotations are text, and whose context is imported for type checkers only."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from decimal import Decimal

    from stem_trio.context import TaskContext


class Address(msgspec.Struct):
    street: str
    parent: Address | None = None


async def postponed(context: TaskContext, to: Address, at: datetime.datetime, path: Path = Path("/")) -> Address:
    """Everything it needs is there when it is defined, but for the context, which is known anyway."""
    return to


async def optional_context(size: int, *, context: TaskContext | None = None) -> tuple[int, str | None]:
    """Its context is optional."""
    return size, context.id if context is not None else None


def only_for_type_checkers(amount: Decimal) -> None:
    """Its annotation cannot be resolved when the program runs."""


def missing_attribute(moment: datetime.nonsense) -> None:
    """Its annotation refers to what a module does not have."""
