from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.hedging import LOAD_MAX, SHARE_MAX, Hedging
from kowalski.mesh.core.latencies import NEEDED


def usual(seconds: float = 0.1, asked: int = 100, now: float = 0.0) -> Hedging:
    hedging = Hedging()
    for _ in range(asked):
        hedging = hedging.ask(now).answer(seconds)
    return hedging


def test_nothing_is_hedged_until_it_is_known_what_is_usual() -> None:
    assert usual(asked=NEEDED - 1).after_s(0.0) is None
    assert usual(0.1).after_s(0.0) == 0.1


def test_what_is_expected_to_take_longer_is_given_twice_that_time() -> None:
    assert usual(0.1).after_s(3.0) == 6.0


def test_a_full_mesh_is_not_asked_twice() -> None:
    assert usual().spend(0.0, LOAD_MAX + 0.01) is None
    assert usual().spend(0.0, LOAD_MAX) is not None


@given(st.integers(0, 400))
def test_at_most_one_in_twenty_is_hedged(asked: int) -> None:
    hedging, hedges = usual(asked=asked), 0
    while (after := hedging.spend(0.0, 0.0)) is not None:
        hedging, hedges = after, hedges + 1
    assert hedges == int(SHARE_MAX * asked + 1e-9)
