"""When two boots are one machine after the other, and when they are two machines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core import twins
from kowalski.mesh.core.twins import Announced, BootHeard, Params, Twins
from kowalski.protocol.ids import Address, PeerId

ME, PEER = PeerId("me"), PeerId("peer")
HERE = (Address("/ip4/192.0.2.1/tcp/4170"),)
THERE = (Address("/ip4/192.0.2.2/tcp/4170"),)
PARAMS = Params()


def after(*events: tuple[float, twins.Event]) -> Twins:
    state = Twins(ME, 0.0)
    for now, event in events:
        twins.step(state, event, now)
        twins.check(state)
    return state


def met(boot: str, addresses: tuple[Address, ...] = ()) -> BootHeard:
    return BootHeard(PEER, boot, None, addresses)


def said(boot: str, sequence: int) -> BootHeard:
    return BootHeard(PEER, boot, sequence)


def test_a_restart_is_no_twin() -> None:
    state = after((0, met("first")), (5, said("first", 7)), (9, met("second")), (40, met("second")))
    assert twins.twin_peers(state, PEER, 41) is None


def test_a_straggler_from_before_a_restart_is_no_twin() -> None:
    state = after((0, said("first", 1)), (9, met("second")), (10, said("first", 2)))
    assert twins.twin_peers(state, PEER, 11) is None


def test_an_earlier_boot_that_goes_on_beside_a_later_one_is_a_twin() -> None:
    state = after((0, met("first", HERE)), (9, met("second", THERE)), (20, said("first", 9)))
    found = twins.twin_peers(state, PEER, 21)
    assert found is not None
    assert found.later == THERE


def test_a_replay_of_an_earlier_boot_is_no_twin() -> None:
    state = after((0, said("first", 5)), (9, met("second")), (20, said("first", 5)))
    assert twins.twin_peers(state, PEER, 21) is None


def test_a_boot_that_was_not_heard_for_long_runs_beside_nobody() -> None:
    late = 9 + PARAMS.turns_within_s + 1
    state = after((0, met("first")), (9, met("second")), (late, said("first", 9)))
    assert twins.twin_peers(state, PEER, late) is None


def test_a_twin_is_forgotten_when_nothing_shows_it_any_more() -> None:
    state = after((0, met("first")), (9, met("second")), (20, met("first")))
    end = 20 + PARAMS.told_for_s
    assert twins.twin_peers(state, PEER, end) is not None
    assert twins.twin_peers(state, PEER, end + 1) is None


def test_only_a_boot_that_is_news_is_worth_another_question() -> None:
    state = after((0, met("first")))
    assert not twins.has_another_boot(state, PEER, 0)
    twins.step(state, met("second"), 5)
    assert twins.has_another_boot(state, PEER, 5)
    twins.step(state, met("second"), 6)
    assert not twins.has_another_boot(state, PEER, 6)


def test_of_two_that_announce_one_id_the_one_that_was_there_first_is_heard_at_our_start() -> None:
    early = twins.own_twin(after((1, Announced(THERE))), 2)
    late = twins.own_twin(after((PARAMS.early_s + 1, Announced(THERE))), PARAMS.early_s + 2)
    assert early is not None
    assert late is not None
    assert (early.are_we_later, late.are_we_later) == (True, False)
    assert early.addresses == THERE


def test_repeated_announcements_do_not_change_who_was_first() -> None:
    state = after((1, Announced(THERE)), (30, Announced(THERE)))
    found = twins.own_twin(state, 31)
    assert found is not None
    assert found.are_we_later
    assert twins.own_twin(state, 30 + PARAMS.told_for_s + 1) is None


EVENTS = st.one_of(
    st.builds(Announced, st.just(THERE)),
    st.builds(
        BootHeard,
        st.sampled_from([ME, PEER, PeerId("other")]),
        st.sampled_from("abcdefg"),
        st.none() | st.integers(0, 20),
        st.sampled_from([(), HERE, THERE]),
    ),
)


@given(st.lists(st.tuples(st.floats(0, 100), EVENTS), max_size=40))
def test_any_history_keeps_within_bounds(history: list[tuple[float, twins.Event]]) -> None:
    now, events = 0.0, []
    for passed, event in history:
        now += passed
        events.append((now, event))
    after(*events)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3)), max_size=40))
def test_one_machine_however_often_restarted_is_never_taken_for_two(
    history: list[tuple[float, int]],
) -> None:
    now, boot, sequence, events = 0.0, 0, 0, []
    for passed, what in history:
        now, sequence = now + passed, sequence + 1
        boot += what == 0
        events.append((now, met(str(boot)) if what == 1 else said(str(boot), sequence)))
    assert twins.twin_peers(after(*events), PEER, now) is None
