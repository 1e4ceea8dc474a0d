from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.telemetry_view import RETIRED_BOOTS_MAX, TelemetryView
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Hot, HotDelta, Profile

PEER = PeerId("PPPPPPPP")


def boot(number: int) -> str:
    return f"{number:016x}"


def hot(value: int) -> Hot:
    """Hot values that tell where they came from."""
    return Hot(memory_used=value / 1000)


def profile(run: int, sequence: int) -> Profile:
    return Profile(
        boot=boot(run),
        sequence=sequence,
        name=f"run {run}",
        version="1",
        roles=(),
        addresses=(),
        sandbox="none",
        hot=hot(sequence),
    )


def delta(run: int, sequence: int) -> HotDelta:
    return HotDelta(boot=boot(run), sequence=sequence, hot=hot(sequence))


def test_a_profile_is_believed_and_brings_its_hot_values() -> None:
    view = TelemetryView().hear_profile(PEER, profile(1, 5), 10.0)
    heard = view.peers[PEER]
    assert (heard.profile, heard.hot, heard.heard_at) == (profile(1, 5), hot(5), 10.0)


def test_a_delta_renews_the_hot_values_and_their_age_only() -> None:
    view = TelemetryView().hear_profile(PEER, profile(1, 5), 10.0)
    heard = view.hear_hot(PEER, delta(1, 6), 12.0).peers[PEER]
    assert (heard.profile, heard.hot, heard.heard_at) == (profile(1, 5), hot(6), 12.0)


@pytest.mark.parametrize(
    "late",
    [
        lambda view: view.hear_hot(PEER, delta(1, 6), 13.0),
        lambda view: view.hear_hot(PEER, delta(1, 5), 13.0),
        lambda view: view.hear_profile(PEER, profile(1, 6), 13.0),
        lambda view: view.hear_profile(PEER, profile(1, 5), 13.0),
    ],
)
def test_replays_and_stragglers_are_dropped_and_counted(
    late: Callable[[TelemetryView], TelemetryView],
) -> None:
    view = TelemetryView().hear_profile(PEER, profile(1, 5), 10.0)
    view = view.hear_hot(PEER, delta(1, 6), 12.0)
    after = late(view)
    assert after.peers == view.peers
    assert after.dropped == 1


def test_a_delta_of_a_run_whose_profile_was_never_heard_says_nothing() -> None:
    assert TelemetryView().hear_hot(PEER, delta(1, 6), 1.0).peers == {}
    view = TelemetryView().hear_profile(PEER, profile(1, 5), 10.0)
    assert view.hear_hot(PEER, delta(2, 9), 11.0).peers == view.peers


def test_a_restarted_peer_begins_anew_with_small_sequences() -> None:
    view = TelemetryView().hear_profile(PEER, profile(1, 500), 10.0)
    view = view.hear_profile(PEER, profile(2, 1), 20.0)
    assert view.peers[PEER].profile == profile(2, 1)
    assert view.hear_hot(PEER, delta(2, 2), 21.0).peers[PEER].hot == hot(2)


def test_the_run_before_a_restart_is_not_heard_again() -> None:
    view = TelemetryView().hear_profile(PEER, profile(1, 5), 10.0)
    view = view.hear_profile(PEER, profile(2, 1), 20.0)
    assert view.hear_profile(PEER, profile(1, 6), 21.0).peers == view.peers
    assert view.hear_hot(PEER, delta(1, 7), 21.0).peers == view.peers


def test_a_reply_brings_fresh_values_of_a_peer_that_is_known() -> None:
    view = TelemetryView().hear_profile(PEER, profile(1, 5), 10.0)
    heard = view.hear_reply(PEER, hot(999), 11.0).peers[PEER]
    assert (heard.hot, heard.heard_at, heard.sequence) == (hot(999), 11.0, 5)
    assert view.hear_reply(PEER, None, 11.0) == view
    assert TelemetryView().hear_reply(PEER, hot(1), 11.0) == TelemetryView()


def test_a_forgotten_peer_is_gone() -> None:
    view = TelemetryView().hear_profile(PEER, profile(1, 5), 10.0)
    assert view.forget(PEER).peers == {}
    assert view.forget(PeerId("QQQQQQQQ")) == view


@given(
    st.lists(
        st.tuples(st.integers(0, RETIRED_BOOTS_MAX), st.integers(1, 9), st.booleans()),
        max_size=120,
    )
)
def test_whatever_the_order_old_runs_and_old_words_never_displace_newer_ones(
    said: list[tuple[int, int, bool]],
) -> None:
    view, runs_heard, newest = TelemetryView(), [], 0
    for now, (run, sequence, is_profile) in enumerate(said):
        before = view
        if is_profile:
            view = view.hear_profile(PEER, profile(run, sequence), float(now))
        else:
            view = view.hear_hot(PEER, delta(run, sequence), float(now))
        if view.peers == before.peers:
            assert view.dropped == before.dropped + 1
            continue
        heard = view.peers[PEER]
        assert heard.hot == hot(sequence)
        if runs_heard and runs_heard[-1] == run:
            assert sequence > newest
        else:
            assert is_profile
            assert run not in runs_heard
            runs_heard.append(run)
        newest = sequence


def test_that_somebody_can_do_other_things_than_before_is_counted() -> None:
    one = profile(1, 1)
    view = TelemetryView().hear_profile(PEER, one, 0.0)
    assert view.profile_changes == 1
    view = view.hear_profile(PEER, one.model_copy(update={"sequence": 2, "cpu": "other"}), 1.0)
    assert view.profile_changes == 1
    view = view.hear_profile(PEER, one.model_copy(update={"sequence": 3, "speed": 2.0}), 2.0)
    assert view.profile_changes == 2
    assert view.forget(PEER).profile_changes == 3
