from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kowalski.mesh.core.connectivity import (
    ADDRESSES_PER_PEER_MAX,
    ANNOUNCED_MAX,
    PEERS_MAX,
    STRANGERS_MAX,
    Answered,
    AskingFailed,
    AskMembership,
    ConnectionClosed,
    ConnectionOpened,
    Connectivity,
    Dial,
    DialFailed,
    Effect,
    Event,
    GivenUp,
    HangUp,
    Introduced,
    MemberConnected,
    MemberDisconnected,
    MembershipProven,
    MembershipRefused,
    Missed,
    Params,
    Peer,
    Reached,
    Sighted,
    Spoke,
    Standing,
    Suspected,
    TimePassed,
    Verify,
    Vouched,
    Woke,
    check,
    check_news,
    step,
    wake_at,
)
from kowalski.protocol.ids import Address, MeshId, PeerId

ME = PeerId("MMMMMMMM")
LOWER = PeerId("AAAAAAAA")
HIGHER = PeerId("ZZZZZZZZ")
OURS, OTHERS = MeshId("a" * 32), MeshId("b" * 32)
HERE, THERE = Address("/memory/here"), Address("/memory/there")
PARAMS = Params()


def after(*events: Event, now: float = 0.0, of: Connectivity | None = None) -> Connectivity:
    """What becomes of `of`, or of a fresh start, by these events at `now`."""
    state = of or Connectivity(ME, OURS)
    for event in events:
        state, _ = step(state, event, now)
        check(state)
    return state


def until(state: Connectivity, wanted: type[Effect], *, limit: float) -> float | None:
    """When letting time pass first leads to such an effect."""
    while (now := wake_at(state)) <= limit:
        state, effects = step(state, TimePassed(), now)
        if any(isinstance(effect, wanted) for effect in effects):
            return now
    return None


def member(peer: PeerId = HIGHER) -> Connectivity:
    return after(Sighted(peer, (HERE,)), ConnectionOpened(peer), MembershipProven(peer, (HERE,)))


# --- whom to dial, and when ---------------------------------------------------------------------


def test_a_higher_peer_is_dialled_at_once() -> None:
    _, effects = step(Connectivity(ME, OURS), Sighted(HIGHER, (HERE,), OURS), 5.0)
    assert effects == (Dial(HIGHER, (HERE,)),)


def test_a_lower_peer_is_left_the_time_to_dial_us() -> None:
    state, effects = step(Connectivity(ME, OURS), Sighted(LOWER, (HERE,), OURS), 5.0)
    assert effects == ()
    assert wake_at(state) == 5.0 + PARAMS.yield_s
    assert step(state, TimePassed(), wake_at(state))[1] == (Dial(LOWER, (HERE,)),)


def test_of_two_connected_peers_the_lower_asks_at_once_and_the_higher_later() -> None:
    _, asked = step(Connectivity(ME, OURS), ConnectionOpened(HIGHER), 1.0)
    assert asked == (AskMembership(HIGHER),)
    state, asked = step(Connectivity(ME, OURS), ConnectionOpened(LOWER), 1.0)
    assert asked == ()
    assert until(state, AskMembership, limit=10) == 1.0 + PARAMS.yield_s


@pytest.mark.parametrize("sighting", [Sighted(HIGHER, (HERE,), OTHERS), Sighted(ME, (HERE,), OURS)])
def test_other_meshes_and_we_ourselves_are_not_dialled(sighting: Sighted) -> None:
    state, effects = step(Connectivity(ME, OURS), sighting, 0.0)
    assert effects == ()
    assert state.peers == {}


def test_a_sighting_without_an_address_waits_for_one() -> None:
    state = after(Sighted(HIGHER, ()))
    assert until(state, Dial, limit=3600) is None
    _, effects = step(state, Sighted(HIGHER, (HERE,)), 1.0)
    assert effects == (Dial(HIGHER, (HERE,)),)


def test_a_connected_peer_is_not_dialled() -> None:
    state = after(ConnectionOpened(HIGHER))
    assert step(state, Sighted(HIGHER, (HERE,)), 0.0)[1] == ()


def test_those_who_are_introduced_together_are_as_if_one_came_after_the_other() -> None:
    sightings = (Sighted(HIGHER, (HERE,)), Sighted(LOWER, (THERE,)), Sighted(ME, (HERE,)))
    state, effects = step(Connectivity(ME, OURS), Introduced(sightings), 3.0)
    assert state == after(*sightings, now=3.0)
    assert effects == (Dial(HIGHER, (HERE,)),)
    again = after(Introduced(sightings[:2]), of=state, now=9.0)
    assert again == after(*sightings[:2], of=state, now=9.0)


def test_failed_dials_are_repeated_ever_more_rarely_but_never_more_than_the_limit_apart() -> None:
    state, now, waits = after(Sighted(HIGHER, (HERE,))), 0.0, []
    for _ in range(40):
        state, _ = step(state, DialFailed(HIGHER, "nobody"), now)
        waits.append(wake_at(state) - now)
        now = wake_at(state)
        state, effects = step(state, TimePassed(), now)
        assert effects == (Dial(HIGHER, (HERE,)),)
    assert waits[0] <= PARAMS.retry_s
    assert max(waits) <= PARAMS.retry_s_max
    assert min(waits[6:]) >= PARAMS.retry_s_max / 2


def test_a_new_address_is_tried_soon_whatever_failed_before() -> None:
    state = after(Sighted(HIGHER, (HERE,)))
    for _ in range(8):
        state = after(DialFailed(HIGHER, "nobody"), of=state)
        state = replace(state, peers={HIGHER: replace(state.peers[HIGHER], act_at=100.0)})
    _, effects = step(state, Sighted(HIGHER, (THERE,)), 1.0)
    assert effects == (Dial(HIGHER, (THERE, HERE)),)


def test_the_same_addresses_in_another_order_are_no_news() -> None:
    state = after(Sighted(HIGHER, (HERE, THERE)), DialFailed(HIGHER, "nobody"))
    assert step(state, Sighted(HIGHER, (THERE, HERE)), 0.0)[1] == ()


def test_where_it_was_reached_last_it_is_tried_first_whatever_is_told_of_it_since() -> None:
    state = after(Sighted(HIGHER, (HERE, THERE)), Reached(HIGHER, THERE), ConnectionOpened(HIGHER))
    state, effects = step(state, MembershipProven(HIGHER, (HERE, THERE)), 1.0)
    assert effects == (MemberConnected(HIGHER, (THERE, HERE)),), "as it is remembered on disk"
    state, _ = step(state, ConnectionClosed(HIGHER), 2.0)
    state, _ = step(state, Sighted(HIGHER, (HERE, THERE)), 2.1)
    _, effects = step(state, TimePassed(), 10.0)
    assert effects == (Dial(HIGHER, (THERE, HERE)),)


def test_a_lost_member_is_dialled_again_within_a_second() -> None:
    state, effects = step(member(), ConnectionClosed(HIGHER), 10.0)
    assert effects == (MemberDisconnected(HIGHER),)
    assert until(state, Dial, limit=100) == 10.0 + PARAMS.retry_s


def test_who_hangs_up_before_proving_anything_is_dialled_ever_more_rarely() -> None:
    state, now, waits = after(Sighted(HIGHER, (HERE,))), 0.0, []
    for _ in range(20):
        state = after(ConnectionOpened(HIGHER), ConnectionClosed(HIGHER), now=now, of=state)
        waits.append(wake_at(state) - now)
        now = wake_at(state)
        state, effects = step(state, TimePassed(), now)
        assert effects == (Dial(HIGHER, (HERE,)),)
    assert max(waits) <= PARAMS.retry_s_max
    assert min(waits[8:]) >= PARAMS.retry_s_max / 2


def test_a_peer_not_heard_of_for_a_day_is_forgotten_unless_the_owner_named_it() -> None:
    state = after(Sighted(HIGHER, (HERE,)), Sighted(LOWER, (HERE,), is_static=True))
    state = after(DialFailed(HIGHER, "nobody"), DialFailed(LOWER, "nobody"), of=state)
    late = after(TimePassed(), now=PARAMS.forget_s + 1, of=state)
    assert HIGHER not in late.peers
    assert late.peers[LOWER].standing is Standing.DIALLING


# --- strangers ----------------------------------------------------------------------------------


def test_a_peer_that_cannot_prove_its_membership_is_hung_up_on_and_left_alone() -> None:
    state = after(Sighted(HIGHER, (HERE,)), ConnectionOpened(HIGHER))
    state, effects = step(state, MembershipRefused(HIGHER, "wrong_mesh"), 10.0)
    assert effects == (HangUp(HIGHER, "wrong_mesh"),)
    state = after(ConnectionClosed(HIGHER), now=10.1, of=state)
    assert until(state, Dial, limit=1000) == 10.0 + PARAMS.shun_s


def test_a_peer_counts_as_refused_until_it_proves_itself() -> None:
    state = after(Sighted(HIGHER, (HERE,)), DialFailed(HIGHER, "no route"))
    assert not state.peers[HIGHER].is_refused
    state = after(ConnectionOpened(HIGHER), MembershipRefused(HIGHER, "expired"), of=state)
    assert state.peers[HIGHER].is_refused
    state = after(ConnectionOpened(HIGHER), now=100.0, of=state)
    assert not state.peers[HIGHER].is_refused
    state = after(ConnectionClosed(HIGHER), now=101.0, of=state)
    assert state.peers[HIGHER].is_refused
    again = (ConnectionOpened(HIGHER), MembershipProven(HIGHER, (HERE,)), ConnectionClosed(HIGHER))
    assert not after(*again, now=102.0, of=state).peers[HIGHER].is_refused


def test_a_shunned_peer_does_not_talk_itself_free_with_new_addresses() -> None:
    state = after(Sighted(HIGHER, (HERE,)), ConnectionOpened(HIGHER))
    state = after(MembershipRefused(HIGHER, "expired"), of=state)
    state, effects = step(state, Sighted(HIGHER, (THERE,)), 1.0)
    assert effects == ()
    assert until(state, Dial, limit=1000) == PARAMS.shun_s


def test_a_connected_stranger_has_only_so_long_to_prove_itself() -> None:
    state = after(ConnectionOpened(HIGHER), AskingFailed(HIGHER, "does not speak it"))
    while (now := wake_at(state)) < PARAMS.stranger_s:
        state = after(TimePassed(), AskingFailed(HIGHER, "does not speak it"), now=now, of=state)
    assert now == PARAMS.stranger_s
    _, effects = step(state, TimePassed(), now)
    assert effects == (HangUp(HIGHER, "does not speak it"),)


def test_a_newcomer_that_joins_in_time_becomes_a_member() -> None:
    state = after(ConnectionOpened(HIGHER), AskingFailed(HIGHER, "does not speak it"))
    _, effects = step(state, MembershipProven(HIGHER, (HERE,)), PARAMS.stranger_s - 1)
    assert effects[0] == MemberConnected(HIGHER, (HERE,))


def test_passers_by_are_not_remembered() -> None:
    state = Connectivity(ME, OURS)
    for number in range(100):
        passer_by = PeerId(f"Z{number:07}")
        opened = ConnectionOpened(passer_by)
        state = after(opened, MembershipRefused(passer_by, "wrong_mesh"), of=state)
    assert state.peers == {}


def test_proof_on_a_connection_that_is_gone_counts_for_nothing() -> None:
    state = after(Sighted(LOWER, (HERE,)))
    state, effects = step(state, MembershipProven(LOWER, (HERE,)), 0.0)
    assert effects == ()
    assert state.members == ()


# --- members ------------------------------------------------------------------------------------


def test_a_proven_peer_is_a_member_and_routable() -> None:
    state = after(ConnectionOpened(HIGHER))
    assert not state.is_member(HIGHER)
    state, effects = step(state, MembershipProven(HIGHER, (HERE,)), 1.0)
    assert effects == (MemberConnected(HIGHER, (HERE,)),)
    assert state.is_routable(HIGHER)


def test_a_member_that_proves_itself_again_does_not_arrive_again() -> None:
    _, effects = step(member(), MembershipProven(HIGHER, (HERE,)), 1.0)
    assert MemberConnected(HIGHER, (HERE,)) not in effects


def test_two_misses_make_a_member_unroutable_and_one_answer_brings_it_back() -> None:
    state = after(Missed(HIGHER), of=member())
    assert state.is_routable(HIGHER)
    state = after(Missed(HIGHER), of=state)
    assert not state.is_routable(HIGHER)
    assert state.is_member(HIGHER)
    assert after(Answered(HIGHER), of=state).is_routable(HIGHER)


def test_a_link_that_stays_silent_is_hung_up_once_and_dialled_anew_at_once() -> None:
    """By whoever hung up, for the other side may know of nothing."""
    for peer in (LOWER, HIGHER):
        state, told = member(peer), []
        for second in range(10):
            state, effects = step(state, Missed(peer), float(second))
            told += [(second, effect) for effect in effects]
        assert told == [(PARAMS.silence_s, HangUp(peer, "7 signs of life missed"))]
        state = after(ConnectionClosed(peer), now=10.0, of=state)
        assert until(state, Dial, limit=20) == 10.0


def test_a_link_on_which_the_peer_speaks_is_not_hung_up_however_much_it_leaves_unanswered() -> None:
    state = member()
    for second in range(30):
        state = after(Spoke(HIGHER), now=float(second), of=state)
        state, effects = step(state, Missed(HIGHER), float(second))
        assert effects == ()
    assert not state.is_routable(HIGHER), "nothing is sent there, for it does not answer"
    effects = step(state, Missed(HIGHER), 29.0 + PARAMS.silence_s)[1]
    assert [type(effect) for effect in effects] == [HangUp]


def test_a_network_that_stands_still_for_a_while_costs_no_connection() -> None:
    state = member()
    for _ in range(20):
        state, effects = step(state, Missed(HIGHER), PARAMS.silence_s - 0.1)
        assert effects == ()
    state = after(Answered(HIGHER), now=PARAMS.silence_s, of=state)
    assert step(state, Missed(HIGHER), PARAMS.silence_s + 1)[1] == ()
    assert state.is_routable(HIGHER)


def test_a_peer_that_was_not_asked_for_long_has_not_been_silent_for_long() -> None:
    state, late = member(), 100.0
    for second in (0.0, 0.5, 1.0, 1.5, PARAMS.silence_s - 0.1):
        state, effects = step(state, Missed(HIGHER), late + second)
        assert effects == ()
    effects = step(state, Missed(HIGHER), late + PARAMS.silence_s)[1]
    assert effects == (HangUp(HIGHER, "6 signs of life missed"),)


def test_a_silent_link_to_a_member_that_the_mesh_gave_up_is_hung_up_and_one_that_works_is_not() -> (
    None
):
    state, effects = step(member(), GivenUp(HIGHER), 1.0)
    assert effects == (Verify(HIGHER),), "it may have died without a word"
    assert not state.is_routable(HIGHER)
    assert after(Answered(HIGHER), of=state).is_routable(HIGHER)
    assert step(state, Missed(HIGHER), 2.0)[1] == (HangUp(HIGHER, "3 signs of life missed"),)
    state = after(Missed(HIGHER), Missed(HIGHER), of=member())
    state, effects = step(state, GivenUp(HIGHER), 1.0)
    assert effects == (Verify(HIGHER),), "it may be merely slow"
    state, effects = step(state, Missed(HIGHER), 2.0)
    assert effects == (HangUp(HIGHER, "3 signs of life missed"),)
    assert step(state, Missed(HIGHER), 3.0)[1] == (), "once"


def asked_in_vain(state: Connectivity, since: float, *, limit: float) -> float | None:
    """When we hang up on whoever answers no question from `since` on; half a second is waited."""
    now = since
    while (now := max(now, wake_at(state))) <= limit:
        state, effects = step(state, TimePassed(), now)
        assert effects == (Verify(HIGHER),)
        now += 0.5
        state, effects = step(state, Missed(HIGHER), now)
        check(state)
        if effects:
            assert [type(effect) for effect in effects] == [HangUp]
            assert wake_at(state) == inf, "once"
            return now
    return None


@pytest.mark.parametrize("word", [Answered, Spoke])
def test_who_is_given_up_says_one_thing_more_and_is_silent_then_is_hung_up_on(
    word: type[Answered | Spoke],
) -> None:
    """Nobody probes it any more, and a cell that runs there is waited for until we hang up."""
    state = after(GivenUp(HIGHER), now=1.0, of=member())
    state = after(word(HIGHER), now=1.1, of=state)
    assert asked_in_vain(state, 1.1, limit=60) is not None
    at = asked_in_vain(state, 1.1, limit=1.1 + PARAMS.silence_s + 2 * PARAMS.ask_again_s)
    assert at is not None
    assert at - 1.1 >= PARAMS.silence_s, "networks do hiccup"


@pytest.mark.parametrize("word", [Vouched, Suspected])
def test_who_was_given_up_is_asked_until_it_is_heard_of_again_and_keeps_its_connection(
    word: type[Vouched | Suspected],
) -> None:
    state, now = after(GivenUp(HIGHER), now=1.0, of=member()), 1.0
    for _ in range(50):
        state = after(Answered(HIGHER), now=now, of=state)
        assert state.is_routable(HIGHER)
        assert wake_at(state) == now + PARAMS.ask_again_s
        now = wake_at(state)
        state, effects = step(state, TimePassed(), now)
        assert effects == (Verify(HIGHER),)
    state = after(word(HIGHER), Answered(HIGHER), now=now, of=state)
    assert wake_at(state) == inf, "it is probed again"
    assert state.is_routable(HIGHER)


def test_who_was_given_up_while_it_was_away_is_asked_when_it_is_back() -> None:
    away = after(ConnectionClosed(HIGHER), GivenUp(HIGHER), of=member())
    back = after(ConnectionOpened(HIGHER), MembershipProven(HIGHER, ()), now=9.0, of=away)
    assert back.is_routable(HIGHER)
    assert asked_in_vain(back, 9.0, limit=20) is not None
    assert wake_at(after(Vouched(HIGHER), now=9.0, of=back)) == inf
    forgiven = after(Vouched(HIGHER), now=5.0, of=away)
    assert wake_at(forgiven) == wake_at(away), "of that one who is away is dialled no sooner"
    back = after(ConnectionOpened(HIGHER), MembershipProven(HIGHER, ()), now=9.0, of=forgiven)
    assert wake_at(back) == inf


def test_whom_others_suspect_is_asked_at_once_and_one_miss_is_enough() -> None:
    state, effects = step(member(), Suspected(HIGHER), 1.0)
    assert effects == (Verify(HIGHER),)
    assert state.is_routable(HIGHER), "it may well be there for us"
    silent, effects = step(state, Missed(HIGHER), 30.0)
    assert effects == (), "no reason to hang up on the merely slow"
    assert not silent.is_routable(HIGHER)
    assert "others suspect it" in silent.peers[HIGHER].why_not
    for heard in (after(Answered(HIGHER), of=state), after(Vouched(HIGHER), of=state)):
        assert after(Missed(HIGHER), of=heard).is_routable(HIGHER)
    assert after(Answered(HIGHER), of=silent).is_routable(HIGHER)


def test_one_that_is_well_again_is_asked_at_once_if_it_was_silent_to_us() -> None:
    assert step(member(), Vouched(HIGHER), 1.0) == (member(), ())
    state = after(Suspected(HIGHER), Missed(HIGHER), Missed(HIGHER), of=member())
    state, effects = step(state, Vouched(HIGHER), 1.0)
    assert effects == (Verify(HIGHER),)
    assert not state.is_routable(HIGHER), "what others have heard is not an answer to us"


def test_a_suspicion_says_nothing_about_a_peer_that_is_away_or_about_its_next_connection() -> None:
    state = after(ConnectionClosed(HIGHER), of=after(Suspected(HIGHER), of=member()))
    assert step(state, Suspected(HIGHER), 1.0) == (state, ())
    assert step(state, Vouched(HIGHER), 1.0)[1] == ()
    state = after(ConnectionOpened(HIGHER), MembershipProven(HIGHER, ()), of=state)
    assert state.is_routable(HIGHER)


def test_misses_and_answers_of_an_ended_connection_do_not_count_on_the_next() -> None:
    state = after(ConnectionClosed(HIGHER), of=member())
    state = after(Answered(HIGHER), *[Missed(HIGHER)] * 5, of=state)
    state = after(ConnectionOpened(HIGHER), MembershipProven(HIGHER, ()), of=state)
    assert state.is_routable(HIGHER)


# --- after a sleep ------------------------------------------------------------------------------


def test_after_a_sleep_a_member_is_verified_and_not_routable_until_it_has_answered() -> None:
    state, effects = step(member(), Woke(), 50.0)
    assert effects == (Verify(HIGHER),)
    assert not state.is_routable(HIGHER)
    assert after(Answered(HIGHER), of=state).is_routable(HIGHER)
    assert step(state, Missed(HIGHER), 51.0)[1] == (HangUp(HIGHER, "3 signs of life missed"),)


def test_after_a_sleep_those_that_are_away_are_dialled_at_once_whatever_failed_before() -> None:
    state, now = after(Sighted(HIGHER, (HERE,))), 0.0
    for _ in range(8):
        state = after(DialFailed(HIGHER, "nobody"), now=now, of=state)
        now = wake_at(state)
        state, _ = step(state, TimePassed(), now)
    state = after(DialFailed(HIGHER, "nobody"), now=now, of=state)
    assert wake_at(state) > now + 5.0
    assert step(state, Woke(), now + 0.1)[1] == (Dial(HIGHER, (HERE,)),)


def test_a_sleep_is_no_reason_to_dial_whom_we_shun() -> None:
    state = after(MembershipRefused(HIGHER, "expired"), ConnectionClosed(HIGHER), of=member())
    assert step(state, Woke(), 1.0)[1] == ()


def test_a_member_that_loses_its_membership_leaves_once() -> None:
    state, effects = step(member(), MembershipRefused(HIGHER, "expired"), 0.0)
    assert effects == (MemberDisconnected(HIGHER), HangUp(HIGHER, "expired"))
    assert step(state, ConnectionClosed(HIGHER), 0.0)[1] == ()


# --- limits -------------------------------------------------------------------------------------


def test_what_is_heard_of_has_a_limit() -> None:
    state = Connectivity(ME, OURS)
    for number in range(PEERS_MAX + 10):
        state, _ = step(state, Sighted(PeerId(f"Z{number:07}"), (HERE,)), 0.0)
    assert len(state.peers) == PEERS_MAX


def test_strangers_beyond_the_limit_are_hung_up_on() -> None:
    state = Connectivity(ME, OURS)
    for number in range(PEERS_MAX + STRANGERS_MAX):
        state, _ = step(state, ConnectionOpened(PeerId(f"Z{number:07}")), 0.0)
    state, effects = step(state, ConnectionOpened(PeerId("Zonetoomany")), 0.0)
    assert effects == (HangUp(PeerId("Zonetoomany"), "too many peers are connected"),)
    check(state)


def test_the_addresses_of_a_peer_have_a_limit_and_its_own_do_not_displace_what_we_knew() -> None:
    claimed = tuple(Address(f"/memory/{number}") for number in range(16))
    state = after(Sighted(HIGHER, (HERE,)), ConnectionOpened(HIGHER))
    state = after(MembershipProven(HIGHER, claimed), of=state)
    addresses = state.peers[HIGHER].addresses
    assert len(addresses) == ADDRESSES_PER_PEER_MAX
    assert addresses[0] == claimed[0]
    assert HERE in addresses


# --- what anybody may announce on the network ---------------------------------------------------


def lies(count: int) -> tuple[Event, ...]:
    """As many announcements that the higher peer is elsewhere, each time somewhere else."""
    return tuple(
        Sighted(
            HIGHER,
            tuple(Address(f"/memory/false-{number}-{n}") for n in range(8)),
            OURS,
            is_announced=True,
        )
        for number in range(count)
    )


@pytest.mark.parametrize(
    "told",
    [
        (Sighted(HIGHER, (HERE,), is_static=True),),
        (Sighted(HIGHER, (HERE,), is_remembered=True),),
        (Sighted(HIGHER, (THERE,)), ConnectionOpened(HIGHER), Reached(HIGHER, HERE)),
        (ConnectionOpened(HIGHER), MembershipProven(HIGHER, (HERE,))),
    ],
    ids=["the owner named", "the last run remembers", "it was reached at", "it told of itself"],
)
def test_announcements_do_not_displace_the_address_that(told: tuple[Event, ...]) -> None:
    state = after(*told, *lies(20))
    addresses = state.peers[HIGHER].addresses
    assert HERE in addresses
    assert len(addresses) == ADDRESSES_PER_PEER_MAX


def test_what_is_announced_has_room_beside_all_that_is_certain() -> None:
    """A device that has moved says so by an announcement, and by nothing else."""
    old = tuple(Address(f"/memory/old-{number}") for number in range(8))
    state = after(Sighted(HIGHER, old[:4], is_static=True), ConnectionOpened(HIGHER))
    state = after(MembershipProven(HIGHER, old[4:]), Reached(HIGHER, old[7]), of=state)
    state = after(Sighted(HIGHER, (THERE,), OURS, is_announced=True), of=state)
    assert THERE in state.peers[HIGHER].addresses


def announced(number: int) -> Sighted:
    """Of a peer to which we leave it to dial, for a while."""
    return Sighted(PeerId(f"A{number:07}"), (HERE,), OURS, is_announced=True)


def test_those_who_were_merely_announced_have_a_limit_of_their_own() -> None:
    state = Connectivity(ME, OURS)
    for number in range(ANNOUNCED_MAX + 10):
        state, _ = step(state, announced(number), float(number))
    assert len(state.peers) == ANNOUNCED_MAX
    assert PeerId("A0000009") not in state.peers, "of those that nobody tried the oldest go first"
    state = after(Sighted(LOWER, (HERE,)), now=1e3, of=state)
    assert LOWER in state.peers, "a member tells of it"


def test_who_was_dialled_in_vain_makes_way_for_a_newcomer() -> None:
    state = Connectivity(ME, OURS)
    for number in range(ANNOUNCED_MAX):
        state, _ = step(state, announced(number), float(number))
    in_vain = PeerId(f"A{ANNOUNCED_MAX - 1:07}")
    state, _ = step(state, TimePassed(), 1e3)
    dialled = [one.id for one in state.peers.values() if one.standing is Standing.DIALLING]
    assert in_vain in dialled
    assert after(announced(1000), now=1e3, of=state) == state, "all are being tried"
    state = after(DialFailed(in_vain, "nobody answers"), announced(1000), now=1e3, of=state)
    assert in_vain not in state.peers
    assert announced(1000).peer in state.peers


def test_a_table_that_is_full_of_hearsay_has_room_for_whom_somebody_vouches_for() -> None:
    state = Connectivity(ME, OURS)
    for number in range(PEERS_MAX - 1):
        state, _ = step(state, Sighted(PeerId(f"B{number:07}"), (HERE,)), 0.0)
    state = after(announced(1), Sighted(HIGHER, (HERE,)), of=state)
    assert HIGHER in state.peers
    assert announced(1).peer not in state.peers
    assert len(state.peers) == PEERS_MAX


def test_a_dial_says_whether_anybody_vouches_for_the_peer() -> None:
    state = after(announced(1))
    hearsay, when = announced(1).peer, PARAMS.yield_s
    assert step(state, TimePassed(), when)[1] == (Dial(hearsay, (HERE,), is_vouched=False),)
    state = after(Introduced((Sighted(hearsay, (HERE,)),)), of=state)
    assert step(state, TimePassed(), when)[1] == (Dial(hearsay, (HERE,), is_vouched=True),)


def test_who_was_merely_announced_is_forgotten_after_an_hour() -> None:
    state = after(announced(1), Sighted(LOWER, (HERE,)))
    now = 0.0
    while (now := wake_at(state)) <= PARAMS.forget_announced_s:
        state, effects = step(state, TimePassed(), now)
        for effect in effects:
            assert isinstance(effect, Dial)
            state, _ = step(state, DialFailed(effect.peer, "nobody answers"), now)
    assert list(state.peers) == [LOWER]


# --- any history --------------------------------------------------------------------------------

PEERS = [PeerId(f"{letter}" * 8) for letter in "ABYZ"]
peers = st.sampled_from(PEERS)
some_addresses = st.lists(
    st.integers(0, 11).map(lambda n: Address(f"/memory/{n}")), max_size=4, unique=True
).map(tuple)


class AnyHistory(RuleBasedStateMachine):
    """Events in any order, those included that no network would bring."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Connectivity(ME, OURS)
        self.now = 1000.0
        self.held: Mapping[PeerId, Peer] | None = None
        self.events: list[tuple[Event, float]] = []
        self.told: Counter[PeerId] = Counter()
        self.shunned_until: dict[PeerId, float] = {}

    def happens(self, event: Event) -> tuple[Effect, ...]:
        before = self.state
        self.state, effects = step(before, event, self.now)
        assert step(before, event, self.now) == (self.state, effects), "not a function"
        check(self.state)
        self.held = check_news(self.state, self.held)
        for effect in effects:
            self.watch(before, effect)
        return effects

    def watch(self, before: Connectivity, effect: Effect) -> None:
        known = before.peers.get(effect.peer)
        match effect:
            case MemberConnected(peer=peer):
                self.told[peer] += 1
                self.shunned_until.pop(peer, None)
            case MemberDisconnected(peer=peer):
                self.told[peer] -= 1
            case Dial(peer=peer, addresses=addresses):
                assert set(addresses) == set(self.state.peers[peer].addresses)
                assert addresses
                assert known is None or not known.is_connected
                assert self.shunned_until.get(peer, -inf) <= self.now
            case _:
                pass

    @rule(peer=peers, addresses=some_addresses, mesh=st.sampled_from([None, OURS, OTHERS]))
    def sighted(self, peer: PeerId, addresses: tuple[Address, ...], mesh: MeshId | None) -> None:
        before = self.state
        self.happens(Sighted(peer, addresses, mesh))
        assert mesh != OTHERS or self.state == before

    @rule(peer=peers, addresses=some_addresses)
    def announced(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        before = self.state.peers.get(peer)
        self.happens(Sighted(peer, addresses, OURS, is_announced=True))
        after = self.state.peers.get(peer)
        if before is not None and after is not None:
            assert set(before.sure_addresses) <= set(after.addresses)

    @rule(peer=peers, addresses=some_addresses)
    def named_by_the_owner(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        self.happens(Sighted(peer, addresses, is_static=True))

    @rule(first=peers, second=peers, addresses=some_addresses)
    def introduced(self, first: PeerId, second: PeerId, addresses: tuple[Address, ...]) -> None:
        self.happens(Introduced((Sighted(first, addresses), Sighted(second, addresses))))

    @rule(peer=peers)
    def opened(self, peer: PeerId) -> None:
        self.happens(ConnectionOpened(peer))

    @rule(peer=peers, address=st.sampled_from([HERE, THERE]))
    def reached(self, peer: PeerId, address: Address) -> None:
        assert self.happens(Reached(peer, address)) == ()

    @rule(peer=peers)
    def closed(self, peer: PeerId) -> None:
        self.happens(ConnectionClosed(peer))
        assert peer not in self.state.members

    @rule(peer=peers, addresses=some_addresses)
    def proven(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        self.happens(MembershipProven(peer, addresses))

    @rule(peer=peers)
    def refused(self, peer: PeerId) -> None:
        self.happens(MembershipRefused(peer, "expired"))
        if peer in self.state.peers:
            self.shunned_until[peer] = self.now + PARAMS.shun_s

    @rule(peer=peers, make=st.sampled_from([DialFailed, AskingFailed]))
    def failed(self, peer: PeerId, make: type[DialFailed | AskingFailed]) -> None:
        self.happens(make(peer, "weather"))

    @rule(peer=peers)
    def answered(self, peer: PeerId) -> None:
        self.happens(Answered(peer))

    @rule(peer=peers, times=st.integers(1, 5))
    def missed(self, peer: PeerId, times: int) -> None:
        for _ in range(times):
            self.happens(Missed(peer))

    @rule(peer=peers, make=st.sampled_from([Suspected, Vouched, GivenUp]))
    def talked_about(self, peer: PeerId, make: type[Suspected | Vouched | GivenUp]) -> None:
        self.happens(make(peer))

    @rule()
    def woke(self) -> None:
        self.happens(Woke())

    @rule(seconds=st.floats(0, 100_000))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: wake_at(self.state) < inf)
    @rule()
    def the_timer_rings(self) -> None:
        due = wake_at(self.state)
        self.now = max(self.now, due)
        self.happens(TimePassed())
        assert wake_at(self.state) > self.now, "no progress"

    @invariant()
    def arrivals_and_departures_are_told_exactly_once(self) -> None:
        assert {peer for peer, count in self.told.items() if count} == set(self.state.members)
        assert all(count in {0, 1} for count in self.told.values())


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
