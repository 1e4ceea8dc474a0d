"""Faults as they are drawn."""

from __future__ import annotations

import random
from collections import Counter

from simulations.menu import MENU, SPECIAL, USUAL, Whom, draw_faults, draw_swarm


def drawn(seed: int, *, nodes: int = 5, kinds: tuple[str, ...] = tuple(MENU)) -> list[object]:
    return list(
        draw_faults(
            random.Random(seed),
            kinds=kinds,
            nodes=range(nodes),
            every_s=1.0,
            lasts_s_max=10.0,
            until_s=100.0,
        )
    )


def test_one_seed_draws_the_same_faults_and_another_others() -> None:
    assert drawn(1) == drawn(1) != drawn(2)


def test_every_kind_is_drawn_and_befalls_as_many_as_it_says() -> None:
    faults = [fault for seed in range(30) for fault in drawn(seed)]
    counts = Counter(fault.kind for fault in faults)  # type: ignore[attr-defined]
    assert counts.keys() == MENU.keys()
    sizes = {Whom.ONE: 1, Whom.PAIR: 2, Whom.SPLIT: 5, Whom.ALL: 0}
    for fault in faults:
        kind = MENU[fault.kind]  # type: ignore[attr-defined]
        assert len(set(fault.nodes)) == sizes[kind.whom]  # type: ignore[attr-defined]
        assert 0 <= fault.at_s < 100  # type: ignore[attr-defined]
        assert 0.5 <= fault.lasts_s <= 10  # type: ignore[attr-defined]


def test_at_most_a_third_is_lost_for_good() -> None:
    for seed in range(20):
        lost = {fault.nodes for fault in drawn(seed, nodes=7, kinds=("lost",))}  # type: ignore[attr-defined]
        assert 1 <= len(lost) <= 2
    assert not drawn(1, nodes=2, kinds=("lost",))


def test_a_swarm_knows_some_of_the_kinds_and_never_none() -> None:
    kinds = tuple(MENU)
    sizes = {len(draw_swarm(random.Random(seed), kinds)) for seed in range(200)}
    assert min(sizes) >= 1
    assert max(sizes) == len(kinds)
    assert len(sizes) > 10
    assert draw_swarm(random.Random(1), ()) == ()


def test_no_kinds_no_faults() -> None:
    assert not drawn(1, kinds=())


def test_what_is_usual_is_as_it_was_and_the_rest_is_special() -> None:
    """Whoever adds to it makes another story of every seed."""
    assert set(USUAL) | SPECIAL == set(MENU)
    assert not set(USUAL) & SPECIAL
    assert len(USUAL) == 45
