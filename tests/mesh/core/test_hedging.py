from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.hedging import LOAD_MAX, SAVED_MAX, SHARE_MAX, Hedging
from kowalski.mesh.core.latencies import NEEDED


def usual(seconds: float = 0.1, asked: int = 100) -> Hedging:
    hedging = Hedging()
    for _ in range(asked):
        hedging = hedging.ask().answer(seconds)
    return hedging


def test_nothing_is_hedged_until_it_is_known_what_is_usual() -> None:
    assert usual(asked=NEEDED - 1).after_s(0.0) is None
    assert usual(0.1).after_s(0.0) == 0.1


def test_what_is_expected_to_take_longer_is_given_twice_that_time() -> None:
    assert usual(0.1).after_s(3.0) == 6.0


def test_a_full_mesh_is_not_asked_twice() -> None:
    assert usual().spend(LOAD_MAX + 0.01) is None
    assert usual().spend(LOAD_MAX) is not None


@given(st.lists(st.booleans(), max_size=400))
def test_at_no_time_more_than_one_in_twenty_was_hedged(history: list[bool]) -> None:
    hedging, asked, hedges = Hedging(), 0, 0
    for wants_to_hedge in history:
        hedging, asked = hedging.ask(), asked + 1
        after = hedging.spend(0.0) if wants_to_hedge else None
        if after is not None:
            hedging, hedges = after, hedges + 1
        assert hedges <= SHARE_MAX * asked + 1e-6


def test_a_quiet_time_saves_up_a_few() -> None:
    hedging, hedges = usual(asked=1000), 0
    while (after := hedging.spend(0.0)) is not None:
        hedging, hedges = after, hedges + 1
    assert hedges == SAVED_MAX
