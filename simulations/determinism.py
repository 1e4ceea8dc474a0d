"""What a seed decides: turns of tasks, dice, secrets, and threads, which become ordinary calls.

A run is repeated exactly, step by step, in every process, if nothing in it comes from outside.
Everything that would is replaced here, for the length of a block, in one place.
"""

from __future__ import annotations

import gc
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from itertools import count
from typing import Any, TypeVar
from unittest.mock import patch

import trio

Result = TypeVar("Result")

work_of_threads: ContextVar[Callable[[Callable[..., object]], None] | None] = ContextVar(
    "work_of_threads", default=None
)
"""Asked before the work of each thread of a node: raises what a bad disk would, or nothing."""

_run: Any = import_module("trio._core._run")
_SWITCH = "_ALLOW_DETERMINISTIC_SCHEDULING"
assert isinstance(getattr(_run, _SWITCH), bool), "trio has changed its scheduler"
assert isinstance(_run._r, random.Random), "trio has changed its scheduler"  # noqa: SLF001

STORIES_THAT_IMPORT = 2
"""Of a process. What is there before them, modules above all, need not be looked at for garbage
after each story; the first story still imports much."""

_told = count()


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Make trio take turns in an order that follows from `seed`, for what is run in the block.

    trio shuffles on purpose, with a generator of its own. It has a switch for tests (its plugin
    for Hypothesis uses it) but no public one; the version is pinned below the next minor.
    """
    with patch.object(_run, _SWITCH, new=True):
        _run._r.seed(seed)  # noqa: SLF001 see above
        try:
            yield
        finally:
            _run._r.seed()  # noqa: SLF001 see above


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Look for no garbage in the block: among many objects that live long it takes long."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


@contextmanager
def decided_by(seed: int) -> Iterator[None]:
    """Let nothing but `seed` decide what happens in the block, which runs trio.

    Garbage is collected before and after: what it ends would be ended when it likes.
    """
    dice = random.Random(seed)
    before = random.getstate()
    with (
        seeded_scheduler(seed),
        patch.object(secrets, "token_bytes", lambda size=32: dice.randbytes(size or 32)),
        patch.object(secrets, "token_hex", lambda size=32: dice.randbytes(size or 32).hex()),
        patch.object(secrets, "randbelow", dice.randrange),
        patch.object(secrets, "choice", dice.choice),
        without_threads(),
        nothing_collected(),
    ):
        random.seed(seed)
        if next(_told) < STORIES_THAT_IMPORT:
            gc.collect()
            gc.freeze()
        try:
            yield
        finally:
            random.setstate(before)
            gc.collect()


@contextmanager
def without_threads() -> Iterator[None]:
    """Do the work of threads at once, as bad disks have it (`work_of_threads`)."""
    with patch.object(trio.to_thread, "run_sync", _run_here):
        yield


async def _run_here(
    function: Callable[..., Result],
    *args: object,
    thread_name: str | None = None,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> Result:
    """`trio.to_thread.run_sync` without a thread: the end of one would come when it likes."""
    del thread_name, abandon_on_cancel
    await trio.lowlevel.checkpoint_if_cancelled()
    me = object()  # a task may hold a limiter twice, in two threads
    if limiter is not None:
        await limiter.acquire_on_behalf_of(me)
    try:
        if obstacle := work_of_threads.get():
            obstacle(function)
        return function(*args)
    finally:
        if limiter is not None:
            limiter.release_on_behalf_of(me)
        await trio.lowlevel.cancel_shielded_checkpoint()
