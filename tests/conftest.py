"""Fixtures for tests of whole nodes."""

import pytest

from simulations.virtual_time import JumpingClock


@pytest.fixture
def virtual_time() -> JumpingClock:
    """Jumps like `autojump_clock`, but never while a thread is at work."""
    return JumpingClock()
