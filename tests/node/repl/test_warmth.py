"""Which kernels wait warm."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.repl.warmth import LATELY_S, Warmth


def test_what_is_always_wanted_stays_so_and_takes_no_place_of_others() -> None:
    warmth = Warmth({"python": 2}, lately_max=1)
    warmth.used("python", 0.0)
    warmth.used("js", 0.0)
    assert warmth.wanted(1.0) == {"python": 2, "js": 1}
    assert warmth.wanted(LATELY_S) == {"python": 2}


def test_a_language_is_wanted_for_as_long_after_its_last_session() -> None:
    warmth = Warmth({}, lately_max=2)
    warmth.used("js", 0.0)
    warmth.used("js", 100.0)
    assert warmth.wanted(LATELY_S + 99.0) == {"js": 1}
    assert warmth.wanted(LATELY_S + 100.0) == {}


@given(st.lists(st.sampled_from(["js", "bash", "ruby", "perl"])), st.integers(0, 3))
def test_the_latest_are_kept_and_never_more_than_there_is_room_for(
    used: list[str], lately_max: int
) -> None:
    warmth = Warmth({"python": 1}, lately_max=lately_max)
    for now, language in enumerate(used):
        warmth.used(language, float(now))
    wanted = warmth.wanted(float(len(used)))
    latest = list(dict.fromkeys(reversed(used)))[:lately_max]
    assert set(wanted) == {"python", *latest}
    assert sum(wanted.values()) <= warmth.kernels_max
