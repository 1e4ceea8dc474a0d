"""Fixtures for tests of whole nodes, and what holds for all properties."""

import pytest
from hypothesis import settings

from simulations.virtual_time import JumpingClock

# How long an example takes is measured in benchmarks: a busy machine is no failure.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def virtual_time() -> JumpingClock:
    """Jumps like `autojump_clock`, but never while a thread is at work."""
    return JumpingClock()
