"""Who is asked for an offer, and who is sent short work without being asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.placement import Candidate, Choice, Need, Ranking, rank
from kowalski.mesh.core.shortlist import (
    ALL_UP_TO,
    ASKED,
    SHORT_S,
    expectation,
    is_short,
    sample,
    shortlist,
    straight_to,
    widened,
)
from kowalski.protocol.messages.telemetry import Occupancy
from tests.mesh.core.test_placement import COLD, PYTHON, SMALL, WARM, busy, candidate


def peers(count: int, **changes: object) -> list[Candidate]:
    return [candidate(f"{number:03}", **changes) for number in range(count)]


def ranking(*candidates: Candidate) -> Ranking:
    return rank(PYTHON, candidates)


def names(choices: tuple[Choice, ...]) -> list[str]:
    return [choice.name for choice in choices]


def test_few_peers_are_all_asked() -> None:
    ranked = ranking(*peers(ALL_UP_TO))
    assert shortlist(PYTHON, ranked, "draw") == ranked.choices


def test_of_many_three_are_asked_and_never_the_worst_third() -> None:
    good, bad = peers(14), [candidate(f"bad{n}", occupancy=busy("code", 8)) for n in range(6)]
    ranked = ranking(*good, *bad)
    seen: Counter[str] = Counter()
    for draw in range(300):
        asked = shortlist(PYTHON, ranked, f"{draw}")
        assert len(asked) == ASKED
        seen.update(names(asked))
    assert set(seen) == {one.name for one in good}


def test_the_same_draw_asks_the_same_peers_and_another_draw_others() -> None:
    ranked = ranking(*peers(40))
    assert shortlist(PYTHON, ranked, "a") == shortlist(PYTHON, ranked, "a")
    assert len({tuple(names(shortlist(PYTHON, ranked, f"{n}"))) for n in range(20)}) > 15


def test_who_has_more_capacity_is_asked_more_often() -> None:
    wide = [
        candidate(f"wide{n}", occupancy=dict.fromkeys(("code",), Occupancy(slots=16)))
        for n in range(5)
    ]
    ranked = ranking(*wide, *peers(5, occupancy={"code": Occupancy(slots=2)}))
    first: Counter[str] = Counter()
    for draw in range(2000):
        first[sample(PYTHON, ranked.choices, 1, f"{draw}")[0].name[:4]] += 1
    # 16 of 18 parts of the capacity: within three standard deviations.
    assert first["wide"] / 2000 == pytest.approx(16 / 18, abs=3 * (16 / 18 * 2 / 18 / 2000) ** 0.5)


def test_who_was_found_slow_is_asked_less() -> None:
    ranked = ranking(*peers(5), *[candidate(f"slow{n}", slowness=10.0) for n in range(5)])
    first = Counter(
        sample(PYTHON, ranked.choices, 1, f"{draw}")[0].name[:4] for draw in range(1000)
    )
    assert first["slow"] < 150


def test_the_holder_of_the_prefix_is_always_asked() -> None:
    ranked = ranking(*peers(30), candidate("holder", holds_prefix=True))
    for draw in range(50):
        asked = shortlist(PYTHON, ranked, f"{draw}")
        assert "holder" in names(asked)
        assert len(asked) <= ASKED + 1


def test_when_all_have_refused_twice_as_many_others_are_asked() -> None:
    ranked = ranking(*peers(20))
    asked = shortlist(PYTHON, ranked, "draw")
    more = widened(PYTHON, ranked, asked, "draw")
    assert len(more) == 2 * ASKED
    assert not set(names(asked)) & set(names(more))


def test_nobody_is_left_to_widen_to_where_all_were_asked() -> None:
    ranked = ranking(*peers(5))
    assert widened(PYTHON, ranked, ranked.choices, "draw") == ()


@given(st.integers(1, 60), st.text(max_size=5))
def test_whoever_is_asked_can_do_it_and_is_asked_once_and_best_first(count: int, draw: str) -> None:
    ranked = ranking(*[candidate(f"{n}", rtt_s=n / 100) for n in range(count)])
    asked = shortlist(PYTHON, ranked, draw)
    assert list(asked) == [one for one in ranked.choices if one in asked]
    assert len(asked) >= min(count, ASKED)


# --- short work ---------------------------------------------------------------------------------


def test_work_is_short_once_it_was_seen_to_be() -> None:
    assert not is_short(PYTHON, None)
    assert is_short(PYTHON, SHORT_S / 2)
    assert not is_short(PYTHON, SHORT_S)
    assert not is_short(replace(PYTHON, units=10.0), SHORT_S / 2)


def test_short_work_goes_to_the_emptier_of_two() -> None:
    full = candidate("full", occupancy=busy("code", 8), unit_s=0.01)
    idle = candidate("idle", unit_s=0.01)
    assert straight_to(PYTHON, ranking(full, idle), 0.01, "draw").name == "idle"


def test_short_work_goes_to_the_faster_of_two_until_its_line_is_too_long() -> None:
    fast, slow = candidate("fast", unit_s=0.01), candidate("slow", unit_s=0.05)
    assert straight_to(PYTHON, ranking(fast, slow), 0.02, "draw").name == "fast"
    full = replace(fast, own_in_flight={"code": 40})
    assert straight_to(PYTHON, ranking(full, slow), 0.02, "draw").name == "slow"


def test_a_peer_never_seen_at_this_work_is_expected_to_take_the_usual_time() -> None:
    expected_s = expectation(PYTHON, 0.04)
    (new,) = ranking(candidate("new")).choices
    (fast,) = ranking(candidate("fast", speed=4.0)).choices
    (slow,) = ranking(candidate("slow", slowness=5.0)).choices
    assert expected_s(new) == pytest.approx(0.041)
    assert expected_s(fast) == pytest.approx(0.011)
    assert expected_s(slow) == pytest.approx(0.201)


def test_units_make_work_longer() -> None:
    (choice,) = ranking(candidate("one", unit_s=0.01)).choices
    assert expectation(replace(PYTHON, units=30.0), 1.0)(choice) == pytest.approx(0.301)


def test_many_who_choose_at_once_do_not_all_run_to_the_same_peer() -> None:
    ranked = ranking(*peers(20, unit_s=0.01))
    chosen = Counter(straight_to(PYTHON, ranked, 0.01, f"{n}").name for n in range(200))
    assert max(chosen.values()) < 30


def test_need_without_a_language_is_no_obstacle() -> None:
    need = Need("folding")
    ranked = rank(need, peers(10))
    assert straight_to(need, ranked, 0.01, "draw") in ranked.choices


@pytest.mark.parametrize("count", [4, 40])
def test_nobody_is_asked_to_load_a_model_while_another_has_it_loaded_and_free(count: int) -> None:
    """However fast the cold ones are, and whatever chance says."""
    cold = peers(count, warm=COLD, tokens_per_s={"small": 99.0})
    warm = [candidate("warm", warm=WARM, tokens_per_s={"small": 1.0}, memory_used=0.9)]
    ranked = rank(SMALL, [*cold, *warm])
    for draw in range(100):
        assert names(shortlist(SMALL, ranked, f"{draw}")) == ["warm"]
        assert straight_to(SMALL, ranked, 0.01, f"{draw}").name == "warm"
    # When it has refused, the others have their turn.
    asked = shortlist(SMALL, ranked, "draw")
    assert all(one.name != "warm" for one in widened(SMALL, ranked, asked, "draw"))


def test_where_nobody_has_it_loaded_all_are_asked() -> None:
    ranked = rank(SMALL, peers(4, warm=COLD))
    assert len(shortlist(SMALL, ranked, "draw")) == 4


def test_who_was_likelier_to_be_looked_at_is_not_likelier_again_to_be_asked() -> None:
    strong, weak = Occupancy(slots=16), Occupancy(slots=1)
    seen = [
        candidate(f"strong{n}", occupancy={"code": strong}, seen_chance=1.0) for n in range(5)
    ] + [candidate(f"weak{n}", occupancy={"code": weak}, seen_chance=1 / 16) for n in range(5)]
    first = Counter(
        sample(PYTHON, ranking(*seen).choices, 1, f"{draw}")[0].name[:4] for draw in range(1000)
    )
    # Each of the weak stands for sixteen like it that were not looked at.
    assert 400 < first["weak"] < 600
