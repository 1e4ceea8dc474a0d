"""Promises against what was seen of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.experience import (
    HALF_LIFE_S,
    PEERS_MAX,
    SLOWNESS_MAX,
    SLOWNESS_MIN,
    Experience,
    Outcome,
)
from kowalski.protocol.ids import PeerId

ONE, TWO = PeerId("peer-one"), PeerId("peer-two")
PYTHON = "code python"


def learned(*outcomes: Outcome, peer: PeerId = ONE, now: float = 0.0) -> Experience:
    experience = Experience()
    for outcome in outcomes:
        experience = experience.learn(peer, PYTHON, outcome, now)
    return experience


def as_promised(seconds: float) -> Outcome:
    return Outcome(units=1.0, took_s=seconds, promised_s=seconds)


TEN_TIMES = Outcome(units=1.0, took_s=10.0, promised_s=1.0)


def test_of_a_peer_never_seen_nothing_is_known_and_its_word_is_believed() -> None:
    assert Experience().unit_s(ONE, PYTHON) is None
    assert Experience().usual_unit_s(PYTHON) is None
    assert Experience().slowness(ONE, PYTHON, 0.0) == 1.0


def test_who_keeps_its_promises_is_believed() -> None:
    assert learned(*[as_promised(0.3)] * 5).slowness(ONE, PYTHON, 0.0) == pytest.approx(1.0)


def test_who_takes_ten_times_as_long_is_found_out_by_its_first_request() -> None:
    found = [learned(*[TEN_TIMES] * n).slowness(ONE, PYTHON, 0.0) for n in (1, 2, 3)]
    assert found == sorted(found)
    assert found[0] > 2.0
    assert found[2] > 4.0


def test_work_that_is_now_short_and_now_long_by_nature_is_no_lie() -> None:
    """An exponential mix, in its order of size twice over, ends believed."""
    lengths = [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.9]
    mixed = [Outcome(1.0, took_s=length, promised_s=1.0) for length in lengths[::2] + lengths[1::2]]
    assert learned(*mixed * 2).slowness(ONE, PYTHON, 0.0) == 1.0


def test_slowness_is_forgiven_with_time() -> None:
    slow = learned(*[TEN_TIMES] * 10)
    at_first = slow.slowness(ONE, PYTHON, 0.0)
    assert slow.slowness(ONE, PYTHON, HALF_LIFE_S) == pytest.approx(at_first**0.5)
    assert slow.slowness(ONE, PYTHON, 20 * HALF_LIFE_S) == 1.0


def test_a_peer_that_answers_nothing_is_found_out_by_what_is_overdue() -> None:
    assert Experience().slowness(ONE, PYTHON, 0.0, overdue=7.0) == 7.0
    assert Experience().slowness(ONE, PYTHON, 0.0, overdue=0.3) == 1.0


def test_noise_on_tiny_promises_is_no_lie() -> None:
    tiny = Outcome(units=1.0, took_s=0.010, promised_s=0.001)
    assert learned(*[tiny] * 10).slowness(ONE, PYTHON, 0.0) < 1.5


def test_a_unit_is_what_it_would_have_taken_alone() -> None:
    shared = Outcome(units=2.0, took_s=12.0, promised_s=12.0, crowding=3.0)
    assert learned(shared).unit_s(ONE, PYTHON) == pytest.approx(2.0)


def test_the_usual_is_the_median_over_peers_of_the_same_work() -> None:
    experience = Experience()
    for number, seconds in enumerate([0.1, 0.2, 9.0]):
        experience = experience.learn(PeerId(f"peer{number}"), PYTHON, as_promised(seconds), 0.0)
    experience = experience.learn(ONE, "folding", as_promised(50.0), 0.0)
    assert experience.usual_unit_s(PYTHON) == pytest.approx(0.2)


def test_what_is_known_of_a_peer_can_be_forgotten() -> None:
    both = learned(TEN_TIMES).learn(TWO, PYTHON, TEN_TIMES, 0.0)
    left = both.forget(ONE)
    assert left.unit_s(ONE, PYTHON) is None
    assert left.unit_s(TWO, PYTHON) is not None


def test_no_more_is_remembered_than_fits() -> None:
    experience = Experience()
    for number in range(PEERS_MAX + 10):
        experience = experience.learn(PeerId(f"peer{number}"), PYTHON, as_promised(1.0), 0.0)
    assert len(experience.seen) == PEERS_MAX
    assert experience.unit_s(PeerId("peer0"), PYTHON) is None


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(1, 10), st.floats(0, 100)),
        max_size=20,
    ),
    st.floats(0, 1e4),
)
def test_slowness_stays_within_bounds_whatever_happens(
    history: list[tuple[float, float, float, float]], overdue: float
) -> None:
    experience, now = Experience(), 0.0
    for took_s, promised_s, crowding, passed_s in history:
        now += passed_s
        outcome = Outcome(1.0, took_s, promised_s, crowding)
        experience = experience.learn(ONE, PYTHON, outcome, now)
    slowness = experience.slowness(ONE, PYTHON, now, overdue=overdue)
    assert SLOWNESS_MIN <= slowness <= SLOWNESS_MAX
