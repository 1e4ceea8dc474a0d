"""Fixtures for tests of whole nodes, and what holds for all properties."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from _pytest.outcomes import Skipped
from hypothesis import settings

from simulations.virtual_time import JumpingClock

# How long an example takes is measured in benchmarks: a busy machine is no failure.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def virtual_time() -> JumpingClock:
    """Jumps like `autojump_clock`, but never while a thread is at work."""
    return JumpingClock()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Let a test say why it was skipped: pytest-trio takes a skip out of its group without it."""
    try:
        return (yield)
    except Skipped as skipped:
        if skipped.__context__ is not None:
            said = [skip.msg for skip in _skips(skipped.__context__)]
            skipped.msg = next(filter(None, said), skipped.msg)
        raise


def _skips(error: BaseException) -> Iterator[Skipped]:
    if isinstance(error, Skipped):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _skips(each)
