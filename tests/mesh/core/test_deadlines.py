from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.deadlines import MARGIN_S_MAX, passed_on_s


def test_a_peer_gives_up_a_little_before_we_do() -> None:
    assert passed_on_s(10.0, 0.01) == 10.0 - 0.01 - 0.2
    assert passed_on_s(600.0, 0.0) == 600.0 - MARGIN_S_MAX


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_every_hop_has_less_and_never_less_than_nothing(
    remaining_s: float, rtts: list[float]
) -> None:
    for rtt_s in rtts:
        passed_s = passed_on_s(remaining_s, rtt_s)
        assert 0 <= passed_s <= remaining_s
        assert passed_s < remaining_s or remaining_s < 1e-300  # of which no share can be taken
        remaining_s = passed_s
