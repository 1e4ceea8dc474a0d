from collections import Counter
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.rendezvous import WEIGHT_STEP, order, quantised, score
from kowalski.protocol.ids import PeerId, TaskId

PEERS = [PeerId(f"peer{number:04}") for number in range(8)]
TASKS = [TaskId(f"task{number}") for number in range(10_000)]

weights = st.dictionaries(
    st.sampled_from(PEERS), st.floats(0.0, 8.0), min_size=1, max_size=len(PEERS)
)
tasks = st.integers(0, 10**9).map(lambda number: TaskId(f"task{number}"))


def winner(task: TaskId, of: dict[PeerId, float]) -> PeerId:
    return order(task, of)[0]


@given(tasks, weights)
def test_everybody_is_in_the_order_once_however_the_view_is_written_down(
    task: TaskId, of: dict[PeerId, float]
) -> None:
    ordered = order(task, of)
    assert sorted(ordered) == sorted(of)
    assert order(task, dict(reversed(of.items()))) == ordered


@given(tasks, weights, st.sampled_from(PEERS))
def test_a_peer_that_leaves_moves_only_what_it_led(
    task: TaskId, of: dict[PeerId, float], gone: PeerId
) -> None:
    left = tuple(peer for peer in order(task, of) if peer != gone)
    assert order(task, of, excluding=(gone,)) == left
    assert order(task, {peer: weight for peer, weight in of.items() if peer != gone}) == left


@given(tasks, weights, st.sampled_from(PEERS), st.floats(0.0, 8.0))
def test_a_changed_weight_moves_only_its_own_peer(
    task: TaskId, of: dict[PeerId, float], peer: PeerId, weight: float
) -> None:
    before, after = order(task, of), order(task, {**of, peer: weight})
    assert [p for p in before if p != peer] == [p for p in after if p != peer]
    if peer in of:
        up = quantised(weight) >= quantised(of[peer])
        moved = before.index(peer) - after.index(peer)
        assert moved >= 0 if up else moved <= 0


@given(tasks, weights, st.floats(-WEIGHT_STEP / 4, WEIGHT_STEP / 4))
def test_noise_below_a_step_moves_nothing(
    task: TaskId, of: dict[PeerId, float], noise: float
) -> None:
    exact = {peer: quantised(weight) for peer, weight in of.items()}
    noisy = {peer: weight + noise for peer, weight in exact.items()}
    assert order(task, noisy) == order(task, exact)


def test_those_excluded_may_come_as_an_iterator() -> None:
    of = dict.fromkeys(PEERS, 1.0)
    assert set(order(TASKS[0], of, excluding=iter((*PEERS[:3], None)))) == set(PEERS[3:])


def test_tasks_spread_by_weight() -> None:
    of = dict(zip(PEERS, (1.0, 1.0, 2.0, 4.0), strict=False))
    won = Counter(winner(task, of) for task in TASKS)
    for peer, weight in of.items():
        share = weight / sum(of.values())
        sigma = sqrt(len(TASKS) * share * (1 - share))
        assert abs(won[peer] - len(TASKS) * share) < 3 * sigma


def test_one_peer_more_takes_its_share_from_all_and_moves_nothing_else() -> None:
    before = dict.fromkeys(PEERS[:4], 1.0)
    after = {**before, PEERS[4]: 1.0}
    moved = [(winner(task, before), winner(task, after)) for task in TASKS]
    taken = [old for old, new in moved if old != new]
    assert all(new == PEERS[4] for old, new in moved if old != new)
    share = 1 / 5
    assert abs(len(taken) - len(TASKS) * share) < 3 * sqrt(len(TASKS) * share * (1 - share))
    assert set(taken) == set(before)


@pytest.mark.parametrize(
    ("weight", "step"), [(0.0, 0.0625), (-3.0, 0.0625), (0.09, 0.0625), (0.1, 0.125), (1.0, 1.0)]
)
def test_weights_come_in_sixteenths_and_nobody_has_none(weight: float, step: float) -> None:
    assert quantised(weight) == step


@given(tasks, st.sampled_from(PEERS))
def test_scores_are_positive_and_grow_with_the_weight(task: TaskId, peer: PeerId) -> None:
    assert 0 < score(task, peer, 1.0) < score(task, peer, 2.0)
