"""What a batch over unlike devices is measured against."""

from __future__ import annotations

import pytest

from benchmarks.batches import DELAYS_S, ideal_s


@pytest.mark.parametrize(
    ("delays_s", "calls", "seconds"),
    [
        ((0.1,), 10, 1.0),
        ((0.1, 0.1), 10, 0.5),
        ((0.1, 0.1), 11, 0.6),
        ((1.0, 3.0), 4, 3.0),
        (DELAYS_S, 300, 2.4),
    ],
)
def test_the_ideal_has_every_server_busy_until_the_last_call_is_answered(
    delays_s: tuple[float, ...], calls: int, seconds: float
) -> None:
    assert ideal_s(delays_s, calls) == pytest.approx(seconds, rel=0.01)
