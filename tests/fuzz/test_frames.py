"""A sample of `make fuzz`: the same every time, and a fresh one whose seed is told."""

from __future__ import annotations

import secrets
import sys

import pytest

from tests.fuzz.frames import run


@pytest.mark.parametrize("seed", [20261123, None], ids=["always", "fresh"])
def test_bad_frames_are_refused_and_the_node_lives_on(seed: int | None) -> None:
    seed = secrets.randbits(32) if seed is None else seed
    sys.stdout.write(f"python -m tests.fuzz.frames --frames 5000 --seed {seed}\n")
    tally = run(5000, seed)
    assert tally.outcomes["refused"] > 3500
    assert tally.outcomes["understood"] > 50
    assert tally.outcomes["torn"] > 50
    assert tally.outcomes["knocked"] >= 50
