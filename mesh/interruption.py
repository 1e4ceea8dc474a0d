"""Whether work that is cancelled here will be wanted again: elsewhere, or of somebody else.

Who is asked keeps such work for a while, as if its asker had been lost. Travels with the context of
a task, so that whoever leaves a conversation need not be told why it is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_interruptions: ContextVar[tuple[Callable[[], bool], ...]] = ContextVar("interruptions", default=())


@contextmanager
def interrupted_if(is_interrupted: Callable[[], bool]) -> Iterator[None]:
    """What is asked for in the block, and cancelled while this is true, will be asked for again."""
    token = _interruptions.set((*_interruptions.get(), is_interrupted))
    try:
        yield
    finally:
        _interruptions.reset(token)


def is_interrupted() -> bool:
    """Whether what the running task asks for is wanted again, should it leave now."""
    return any(one() for one in _interruptions.get())
