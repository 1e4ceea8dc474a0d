from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.latency import Latency, measure
from kowalski.mesh.core.topology import Params, Topology, own_paths, row_due_at
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import ROUND_TRIPS_MAX
from kowalski.protocol.messages.telemetry import RoundTrips, RoundTripTo

A, B, C = PeerId("AAAAAAAA"), PeerId("BBBBBBBB"), PeerId("CCCCCCCC")
PARAMS = Params()
BOOT, OTHER_BOOT = "00" * 8, "11" * 8


def path(peer: PeerId, smooth_s: float) -> RoundTripTo:
    return RoundTripTo(peer=peer, smooth_s=smooth_s, least_s=smooth_s, jitter_s=0.0)


def told(sequence: int, *paths: RoundTripTo, boot: str = BOOT) -> RoundTrips:
    return RoundTrips(boot=boot, sequence=sequence, paths=paths)


def test_the_newest_row_of_a_boot_stands_and_a_new_boot_begins_anew() -> None:
    view = Topology().hear(A, told(5, path(B, 0.1)), 1.0)
    assert view.hear(A, told(5, path(B, 0.9)), 2.0) is view, "a replay"
    assert view.hear(A, told(4, path(B, 0.9)), 2.0) is view, "a straggler"
    newer = view.hear(A, told(6, path(C, 0.2)), 3.0)
    assert (newer.rows[A].paths, newer.rows[A].heard_at) == ({C: path(C, 0.2)}, 3.0)
    assert newer.hear(A, told(1, boot=OTHER_BOOT), 4.0).rows[A].paths == {}


def test_nobody_is_any_way_from_itself_and_who_is_forgotten_has_no_row() -> None:
    view = Topology().hear(A, told(1, path(A, 0.1), path(B, 0.2)), 0.0)
    assert set(view.rows[A].paths) == {B}
    assert view.forget(A).rows == {}
    assert view.forget(B) is view


@given(st.permutations([1, 2, 3, 4, 5]), st.lists(st.integers(1, 5)))
def test_reorder_and_replay_end_with_the_newest(order: list[int], again: list[int]) -> None:
    view = Topology()
    for sequence in (*order, *again):
        view = view.hear(A, told(sequence, path(B, float(sequence))), 0.0)
    assert view.rows[A].paths[B].smooth_s == 5.0


def test_our_row_has_the_nearest_first_and_fits_into_gossip() -> None:
    latencies = {
        PeerId(f"{n:08d}".replace("0", "z")): Latency(1 / (n + 1), 0.0, ((0.0, 1.0),), 0.0)
        for n in range(ROUND_TRIPS_MAX + 9)
    }
    row = own_paths(latencies, 0.0)
    assert len(row) == ROUND_TRIPS_MAX
    assert list(row) == sorted(row, key=lambda path: path.smooth_s)
    assert own_paths({A: measure(None, 1e9, 0.0)}, 0.0)[0].smooth_s == 3600.0


def measured(smooth_s: float) -> Latency:
    return Latency(smooth_s, 0.0, ((0.0, smooth_s),), 0.0)


@pytest.mark.parametrize(
    ("said", "ours", "due_at"),
    [
        (None, {}, inf),
        (None, {B: 0.1}, -inf),
        ({}, {}, inf),
        ({B: 0.1}, {B: 0.1}, 100 + PARAMS.row_s_max),
        ({B: 0.1}, {B: 0.12}, 100 + PARAMS.row_s_max),
        ({B: 0.1}, {B: 0.14}, 100 + PARAMS.row_s_min),
        ({B: 0.0002}, {B: 0.001}, 100 + PARAMS.row_s_max),
        ({B: 0.1}, {B: 0.1, C: 0.1}, 100 + PARAMS.row_s_min),
        ({B: 0.1}, {}, 100 + PARAMS.row_s_min),
    ],
    ids=[
        "nothing yet", "the first", "still nothing", "the same", "a little", "much", "tiny", "came",
        "went",
    ],
)  # fmt: skip
def test_a_row_goes_out_soon_when_it_moved_and_seldom_otherwise(
    said: dict[PeerId, float] | None, ours: dict[PeerId, float], due_at: float
) -> None:
    latencies = {peer: measured(smooth_s) for peer, smooth_s in ours.items()}
    assert row_due_at(PARAMS, said, latencies, 100.0) == due_at


def test_of_more_peers_than_fit_only_the_nearest_can_move() -> None:
    near = {PeerId(f"{n:08d}".replace("0", "z")): 0.1 + n / 1000 for n in range(ROUND_TRIPS_MAX)}
    latencies = {B: measured(9.0)} | {peer: measured(smooth_s) for peer, smooth_s in near.items()}
    assert row_due_at(PARAMS, near, latencies, 100.0) == 100 + PARAMS.row_s_max
    latencies[B] = measured(0.01)
    assert row_due_at(PARAMS, near, latencies, 100.0) == 100 + PARAMS.row_s_min


def test_in_a_large_mesh_our_row_goes_out_more_seldom() -> None:
    still_at, moved_at = (
        row_due_at(PARAMS, {B: 0.01}, {B: measured(smooth_s)}, 100.0, times=20.0)
        for smooth_s in (0.01, 0.5)
    )
    assert (still_at, moved_at) == (1300.0, 300.0)
