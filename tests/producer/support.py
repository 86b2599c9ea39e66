"""What tests of producers share."""

from __future__ import annotations

from stem_trio import task


@task(name="job", queue="jobs")
async def job(number: int, text: str = "") -> int:
    """The task that they enqueue."""
    return number
