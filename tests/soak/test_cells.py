"""A sample of `make soak`."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest
import trio

from tests.soak.cells import GROWTH_BYTES_MAX, LOOKS, Look, complaints_of, soak

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def test_some_hundred_cells_leave_nothing_behind(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    sys.stdout.write(f"python -m tests.soak.cells --cells 300 --seed {seed}\n")
    tally = trio.run(soak, 300, seed, tmp_path)
    assert tally.complaints == []
    assert tally.cells >= 300
    assert len(tally.looks) == LOOKS


def test_growth_of_every_kind_is_noticed() -> None:
    early = Look(100, 10**8, 20, 5, 10**8)
    assert complaints_of([early] * 3 + [Look(400, 10**8, 20, 5, 10**8)]) == []
    for late, words in (
        (Look(400, 10**8 + GROWTH_BYTES_MAX + 1, 20, 5, 10**8), "memory has grown"),
        (Look(400, 10**8, 21, 5, 10**8), "21 descriptors, 20 at cell 100"),
        (Look(400, 10**8, 20, 6, 10**8), "6 processes"),
        (Look(400, 10**8, 20, 5, 10**8 + GROWTH_BYTES_MAX + 1), "memory of children"),
    ):
        (complaint,) = complaints_of([early] * 3 + [late])
        assert complaint.startswith(words)
