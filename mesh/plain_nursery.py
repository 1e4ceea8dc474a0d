"""A nursery for work that one caller waits for: its errors come out plain, not in a group.

The caller of an ordinary function expects the documented exceptions. When several tasks fail at
once the first error is raised and the others are its context; they had the same cause, or they
were cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        raise first_error(group)  # noqa: B904 its own cause stays, and the group is the context


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf that is no cancellation, if there is one."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
