"""One failure detector, step by step; the others are played by the tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest

from kowalski.mesh.core import failure_detector as machine
from kowalski.mesh.core.failure_detector import PROBES_MAX, ROWS_PER_MESSAGE
from kowalski.mesh.core.failure_detector_events import (
    Answer,
    AnswerHelp,
    AnswerSync,
    AskHelp,
    AskSync,
    CheckConnections,
    ConnectionLost,
    Heard,
    HelpAnswered,
    HelpAsked,
    HelpFailed,
    KeepIncarnation,
    Leave,
    LookAtTheClock,
    MemberChanged,
    MemberExpelled,
    MemberMet,
    PartitionOver,
    PartitionSuspected,
    PeerMissed,
    Probe,
    ProbeAnswered,
    ProbeFailed,
    ProbeHeard,
    RequestUnanswered,
    SyncAnswered,
    SyncAsked,
    Tell,
    TimePassed,
    Told,
    Woke,
)
from kowalski.mesh.core.failure_detector_state import Params, new, timeout_s
from kowalski.mesh.core.membership import Claim
from kowalski.mesh.core.rumours import times_max
from tests.mesh.core.detectors import (
    ME,
    PARAMS,
    Detector,
    among,
    lose_at_once,
    of_kind,
    peer,
)

# --- whom to probe, and when --------------------------------------------------------------------


def test_who_knows_nobody_looks_at_the_clock_now_and_then() -> None:
    assert machine.wake_at(new(ME, 1)) == inf
    state = new(ME, 1, PARAMS, now=5.0)
    for at in (5.0, 5.0 + PARAMS.alone_s):
        assert machine.wake_at(state) == at
        state, effects = machine.step(state, TimePassed(), at)
        assert effects == (LookAtTheClock(),)


def test_who_knows_nobody_and_stood_still_says_so() -> None:
    state, _ = machine.step(new(ME, 1, PARAMS, now=5.0), TimePassed(), 5.0)
    _, effects = machine.step(state, TimePassed(), 5.0 + PARAMS.alone_s + PARAMS.away_s)
    assert CheckConnections() in effects


def test_members_are_probed_in_turn_each_once_a_round() -> None:
    detector, probed = among(5), []
    while len(probed) < 15:
        for probe in of_kind(detector.tick(), Probe):
            probed.append(probe.peer)
            detector.hear(ProbeAnswered(probe.number, ()))
    assert set(Counter(probed).values()) <= {2, 3, 4}
    # Between two probes of a peer there are at most two rounds.
    for one in range(5):
        at = [index for index, name in enumerate(probed) if name == peer(one)]
        assert all(later - earlier < 10 for earlier, later in pairwise(at))


@pytest.mark.parametrize(("others", "interval_s"), [(3, 0.5), (63, 0.5), (64, 1.0)])
def test_a_large_mesh_is_probed_at_a_longer_interval(others: int, interval_s: float) -> None:
    detector = among(others)
    first = detector.until(Probe)
    sent_at = detector.now
    detector.hear(ProbeAnswered(first.number, ()))
    detector.until(Probe)
    assert detector.now - sent_at == pytest.approx(interval_s)


def test_a_peer_that_joins_is_told_of_and_probed() -> None:
    detector = among(2)
    assert MemberChanged(peer(9), None, "alive", 4) in detector.hear(MemberMet(peer(9), 4))
    probed = set()
    for _ in range(40):
        for probe in of_kind(detector.tick(), Probe):
            probed.add(probe.peer)
            detector.hear(ProbeAnswered(probe.number, ()))
    assert probed == {peer(0), peer(1), peer(9)}


# --- from silence to suspicion ------------------------------------------------------------------


def test_a_silent_peer_is_probed_again_and_through_helpers_and_then_suspected() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    detector.now += PARAMS.timeout_s
    effects = detector.hear(TimePassed())
    assert PeerMissed(probe.peer) in effects
    assert [one.peer for one in of_kind(effects, Probe) if one.number == probe.number]
    helpers = of_kind(effects, AskHelp)
    assert len({one.helper for one in helpers}) == PARAMS.helpers
    assert all((one.target, one.number) == (probe.peer, probe.number) for one in helpers)
    assert probe.peer not in {one.helper for one in helpers}
    for _ in helpers:
        detector.hear(HelpAnswered(probe.number, has_reached=False, claims=()))
    detector.now += PARAMS.timeout_s
    effects = detector.hear(TimePassed())
    assert PeerMissed(probe.peer) in effects
    assert MemberChanged(probe.peer, "alive", "suspect", 1) in effects


def test_one_helper_that_reaches_it_is_enough() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    detector.now += PARAMS.timeout_s
    detector.hear(TimePassed())
    detector.hear(HelpAnswered(probe.number, has_reached=False, claims=()))
    detector.hear(HelpAnswered(probe.number, has_reached=True, claims=()))
    assert probe.number not in detector.state.probes
    detector.never(MemberChanged, within_s=10.0)


def test_a_late_answer_counts_as_long_as_the_probe_is_under_way() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    detector.now += PARAMS.timeout_s
    detector.hear(TimePassed())
    detector.hear(ProbeAnswered(probe.number, ()))
    detector.hear(ProbeFailed(probe.number))
    detector.never(MemberChanged, within_s=10.0)


def test_where_every_way_is_closed_nobody_waits_for_a_timeout() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    began = detector.now
    lose_at_once(detector, probe)
    detector.hear(HelpFailed(probe.number))
    detector.hear(HelpAnswered(probe.number, has_reached=False, claims=()))
    effects = detector.hear(HelpAnswered(probe.number, has_reached=False, claims=()))
    assert MemberChanged(probe.peer, "alive", "suspect", 1) in effects
    assert detector.now == began


def test_a_closed_connection_is_looked_at_through_helpers_at_once_and_is_no_verdict() -> None:
    detector = among(6)
    effects = detector.hear(ConnectionLost(peer(3)))
    assert [probe.peer for probe in of_kind(effects, Probe)] == [peer(3)]
    assert len(of_kind(effects, AskHelp)) == PARAMS.helpers
    assert not of_kind(effects, MemberChanged)
    assert detector.hear(ConnectionLost(peer(3))) == [], "it is being looked at"


def test_an_unanswered_request_is_a_reason_to_look_and_no_more() -> None:
    detector = among(6)
    effects = detector.hear(RequestUnanswered(peer(3)))
    assert [probe.peer for probe in of_kind(effects, Probe)] == [peer(3)]
    assert detector.hear(RequestUnanswered(peer(3))) == []
    assert detector.hear(RequestUnanswered(peer(77))) == [], "nobody we know"


def test_with_one_other_there_are_no_helpers_and_silence_is_enough() -> None:
    detector = among(1)
    detector.until(Probe)
    while not of_kind(effects := detector.tick(), MemberChanged):
        assert not of_kind(effects, AskHelp)
    assert MemberChanged(peer(0), "alive", "suspect", 1) in effects


# --- from suspicion to verdict, or back ---------------------------------------------------------


def suspecting(count: int = 6, suspect: int = 3) -> Detector:
    """It was told by peer 0 that one is suspect; what follows from that by itself is over."""
    detector = among(count)
    detector.hear(Told(1, peer(0), (Claim(peer(suspect), "suspect", 1, peer(0)),)))
    return detector


def silence(detector: Detector, who: int, kind: type, *, within_s: float = 60.0) -> object:
    """Everybody but one answers, until there is such an effect."""
    give_up_at = detector.now + within_s
    while detector.now < give_up_at:
        effects = detector.tick()
        if found := of_kind(effects, kind):
            return found[0]
        for probe in of_kind(effects, Probe):
            if probe.peer != peer(who):
                detector.hear(ProbeAnswered(probe.number, ()))
        for ask in of_kind(effects, AskHelp):
            has_reached = ask.target != peer(who)
            detector.hear(HelpAnswered(ask.number, has_reached=has_reached, claims=()))
    raise AssertionError(f"no {kind.__name__}")


def test_a_suspect_that_says_nothing_is_given_up() -> None:
    detector = suspecting()
    began = detector.now
    assert silence(detector, 3, MemberChanged) == MemberChanged(peer(3), "suspect", "failed", 1)
    assert detector.now - began >= 3 * 0.5


def test_a_suspect_that_contradicts_is_alive_again_and_nobody_is_given_up() -> None:
    detector = suspecting()
    back = detector.hear(Told(2, peer(1), (Claim(peer(3), "alive", 2),)))
    assert MemberChanged(peer(3), "suspect", "alive", 2) in back
    detector.never(MemberChanged, within_s=60.0)


def test_who_hears_of_a_suspicion_looks_for_itself_and_tells_the_suspect() -> None:
    detector = suspecting()
    probes = of_kind(detector.tick(), Probe)
    assert [probe.peer for probe in probes] == [peer(3)]
    assert probes[0].claims[0] == Claim(peer(3), "suspect", 1)


def test_in_a_large_mesh_only_some_look_for_themselves() -> None:
    looked = 0
    for number in range(100):
        detector = Detector(new(peer(1000 + number), 1))
        detector.hear(Heard(peer(0), tuple(Claim(peer(n), "alive", 1) for n in range(99))))
        detector.hear(Heard(peer(0), (Claim(peer(3), "suspect", 1, peer(0)),)))
        looked += detector.state.probe_at == detector.now
    assert 2 <= looked <= 20  # 8 expected


def test_confirmations_are_passed_on_while_they_shorten_the_wait() -> None:
    detector = suspecting(20)
    waits = [detector.state.verdict_at]
    for accuser in (1, 2, 4, 5):
        claim = Claim(peer(3), "suspect", 1, peer(accuser))
        detector.hear(Told(2, peer(accuser), (claim,)))
        waits.append(detector.state.verdict_at)
    assert waits[0] > waits[1] > waits[2] == waits[3] == waits[4]
    assert len(detector.state.suspicions[peer(3)].accusers) == 3
    before = detector.state
    detector.hear(Told(2, peer(1), (Claim(peer(3), "suspect", 1, peer(1)),)))
    assert detector.state.suspicions is before.suspicions, "heard before"


def test_a_peer_that_was_given_up_is_told_so_when_it_is_back() -> None:
    detector = suspecting()
    silence(detector, 3, MemberChanged)
    effects = detector.hear(MemberMet(peer(3), 1))
    assert [tell.claims[0] for tell in of_kind(effects, Tell)] == [Claim(peer(3), "failed", 1)]
    back = detector.hear(Heard(peer(3), (Claim(peer(3), "alive", 2),)))
    assert MemberChanged(peer(3), "failed", "alive", 2) in back


def test_a_peer_that_restarted_needs_no_contradiction() -> None:
    detector = suspecting()
    silence(detector, 3, MemberChanged)
    effects = detector.hear(MemberMet(peer(3), 2))
    assert MemberChanged(peer(3), "failed", "alive", 2) in effects
    assert not of_kind(effects, Tell)


# --- about ourselves ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["suspect", "failed"])
def test_we_contradict_what_is_said_of_us_once_it_is_on_disk(state: str) -> None:
    detector = among(3)
    effects = detector.hear(ProbeHeard(7, peer(0), (Claim(ME, state, 1, peer(0)),)))  # type: ignore[arg-type]
    assert effects[0] == KeepIncarnation(2)
    (answer,) = of_kind(effects, Answer)
    assert answer.number == 7
    assert answer.claims[0] == Claim(ME, "alive", 2)
    assert detector.state.health == 1


def test_an_asker_whom_we_have_given_up_hears_so_in_the_answer() -> None:
    detector = suspecting()
    silence(detector, 3, MemberChanged)
    (answer,) = of_kind(detector.hear(ProbeHeard(7, peer(3), ())), Answer)
    assert answer.claims[0] == Claim(peer(3), "failed", 1)


def test_who_leaves_says_so_and_probes_nobody_any_more() -> None:
    detector = among(3)
    told = of_kind(detector.hear(Leave()), Tell)
    assert {tell.peer for tell in told} == {peer(0), peer(1), peer(2)}
    assert {tell.claims for tell in told} == {(Claim(ME, "left", 1),)}
    assert machine.wake_at(detector.state) == inf


def test_a_peer_that_left_is_not_suspected() -> None:
    detector = among(3)
    effects = detector.hear(Told(1, peer(2), (Claim(peer(2), "left", 1),)))
    assert MemberChanged(peer(2), "alive", "left", 1) in effects
    assert detector.hear(ConnectionLost(peer(2))) == []
    detector.never(MemberChanged, within_s=30.0)


def test_of_an_expelled_member_nothing_is_left() -> None:
    detector = suspecting()
    detector.tick()
    detector.hear(MemberExpelled(peer(3)))
    detector.done.clear()
    assert detector.state.table.state_of(peer(3)) is None
    detector.never(MemberChanged, within_s=30.0)
    assert not any(claim.peer == peer(3) for claim in detector.said())


# --- our own health -----------------------------------------------------------------------------


def test_helpers_that_do_not_even_say_no_make_us_doubt_ourselves() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    for _ in range(2):
        detector.now += timeout_s(detector.state)
        detector.hear(TimePassed())
    assert detector.state.table.state_of(probe.peer) == "suspect"
    assert detector.state.health == PARAMS.helpers
    assert timeout_s(detector.state) == PARAMS.timeout_s * 4


def test_helpers_that_say_no_in_time_leave_our_health_alone() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    detector.now += PARAMS.timeout_s
    detector.hear(TimePassed())
    for _ in range(3):
        detector.hear(HelpAnswered(probe.number, has_reached=False, claims=()))
    detector.now += PARAMS.timeout_s
    detector.hear(TimePassed())
    assert detector.state.table.state_of(probe.peer) == "suspect"
    assert detector.state.health == 0


def test_answers_make_us_well_again() -> None:
    detector = among(6)
    detector.state = replace(detector.state, health=3)
    for _ in range(3):
        probe = detector.until(Probe)
        detector.hear(ProbeAnswered(probe.number, ()))
    assert detector.state.health == 0


def test_health_is_bounded() -> None:
    detector = among(6)
    for incarnation in range(1, 20):
        detector.hear(Told(1, peer(0), (Claim(ME, "suspect", incarnation, peer(0)),)))
    assert detector.state.health == PARAMS.health_max


def test_after_we_were_late_ourselves_nobody_is_missed_and_everybody_has_more_time() -> None:
    detector = suspecting()
    detector.tick()
    probes = set(detector.state.probes)
    verdict_at = detector.state.verdict_at
    detector.now = verdict_at + 1.0
    effects = detector.hear(TimePassed())
    assert not of_kind(effects, PeerMissed)
    assert not of_kind(effects, MemberChanged)
    assert probes <= set(detector.state.probes)
    assert detector.state.verdict_at > detector.now
    assert detector.state.health == 1


@pytest.mark.parametrize("how", ["stopped", "asleep"])
def test_back_from_afar_we_ask_how_we_stand_before_we_accuse_anybody(how: str) -> None:
    detector = suspecting()
    detector.tick()
    if how == "stopped":
        detector.now += 30.0
        effects = detector.hear(TimePassed())
    else:
        effects = detector.hear(Woke(3600.0))
    assert CheckConnections() in effects
    assert len(of_kind(effects, AskSync)) >= PARAMS.helpers
    assert not of_kind(effects, MemberChanged)
    assert not of_kind(effects, PeerMissed)


# --- many at once -------------------------------------------------------------------------------


def accuse(detector: Detector, *numbers: int) -> list[object]:
    effects = []
    for number in numbers:
        effects += detector.hear(
            Told(
                1,
                peer(0),
                tuple(Claim(peer(number), "suspect", 1, peer(by)) for by in (0, 1, 2, 3)),
            )
        )
    return effects


def test_when_a_third_are_suspect_at_once_verdicts_wait_and_it_is_reported_once() -> None:
    detector = among(12)
    effects = accuse(detector, 5, 6, 7, 8, 9)
    assert [e for e in effects if isinstance(e, PartitionSuspected)] == [PartitionSuspected(5, 12)]
    least_s = detector.state.verdict_at - detector.now
    began = detector.now
    failed_at = []
    while len(failed_at) < 5:
        changes = of_kind(detector.tick(), MemberChanged)
        failed_at += [detector.now - began for change in changes if change.state == "failed"]
    assert min(failed_at) == pytest.approx(least_s * 7)
    detector.answer_all()
    assert detector.until(PartitionOver, within_s=12.0), "once that is some time ago"


def test_one_suspect_is_given_up_without_a_reprieve_however_few_there_are() -> None:
    detector = among(2)
    effects = accuse(detector, 1)
    assert not [e for e in effects if isinstance(e, PartitionSuspected)]
    verdict_at = detector.state.verdict_at
    silence(detector, 1, MemberChanged)
    assert detector.now == verdict_at


def test_one_that_failed_and_came_back_counts_once_when_it_is_suspect_again() -> None:
    detector = among(2)
    accuse(detector, 1)
    silence(detector, 1, MemberChanged)
    detector.hear(Heard(peer(1), (Claim(peer(1), "alive", 2),)))
    again = Claim(peer(1), "suspect", 2, peer(0))
    effects = detector.hear(Heard(peer(0), (again,)))
    assert not of_kind(effects, PartitionSuspected), effects


def test_where_all_others_fall_silent_at_once_even_a_small_mesh_waits() -> None:
    detector = among(2)
    effects = accuse(detector, 0, 1)
    assert PartitionSuspected(2, 2) in effects


def test_a_partition_is_over_when_enough_have_contradicted() -> None:
    detector = among(12)
    accuse(detector, 5, 6, 7, 8, 9)
    effects = detector.hear(Heard(peer(5), (Claim(peer(5), "alive", 2),)))
    assert PartitionOver() in effects


# --- helping others -----------------------------------------------------------------------------


def test_a_helper_probes_and_says_that_it_was_answered() -> None:
    detector = among(3)
    effects = detector.hear(HelpAsked(9, peer(0), peer(1), 0.5, ()))
    (probe,) = of_kind(effects, Probe)
    assert probe.peer == peer(1)
    answered = detector.hear(ProbeAnswered(probe.number, ()))
    assert [(one.number, one.has_reached) for one in of_kind(answered, AnswerHelp)] == [(9, True)]


def test_a_helper_says_in_time_that_it_was_not_answered() -> None:
    detector = among(3)
    began = detector.now
    (probe,) = of_kind(detector.hear(HelpAsked(9, peer(0), peer(1), 0.5, ())), Probe)
    answer = detector.until(AnswerHelp)
    assert (answer.number, answer.has_reached) == (9, False)
    assert detector.now - began <= 0.4 + 1e-9
    assert detector.state.table.state_of(peer(1)) == "alive"
    assert not of_kind(detector.done, PeerMissed), "somebody else's impatience"
    assert probe.timeout_s <= 0.4 + 1e-9


def test_a_helper_without_a_connection_says_so_at_once() -> None:
    detector = among(3)
    (probe,) = of_kind(detector.hear(HelpAsked(9, peer(0), peer(1), 0.5, ())), Probe)
    answered = detector.hear(ProbeFailed(probe.number))
    assert [(one.number, one.has_reached) for one in of_kind(answered, AnswerHelp)] == [(9, False)]


@pytest.mark.parametrize(("target", "has_reached"), [(ME, True), (peer(77), False)])
def test_help_with_ourselves_or_with_strangers_is_answered_at_once(
    target: str, has_reached: bool
) -> None:
    effects = among(3).hear(HelpAsked(9, peer(0), target, 0.5, ()))  # type: ignore[arg-type]
    assert of_kind(effects, AnswerHelp) == [AnswerHelp(9, has_reached, ())]
    assert not of_kind(effects, Probe)


def test_who_is_asked_for_too_much_help_says_no() -> None:
    detector = among(3)
    for number in range(PROBES_MAX + 10):
        effects = detector.hear(HelpAsked(number, peer(0), peer(1), 5.0, ()))
        assert len(detector.state.probes) <= PROBES_MAX
    assert of_kind(effects, AnswerHelp) == [AnswerHelp(PROBES_MAX + 9, False, ())]


# --- news, and comparing ------------------------------------------------------------------------


def test_news_is_passed_on_to_a_few_soon_and_again_until_it_is_old() -> None:
    detector = among(12)
    heard_at = detector.now
    detector.hear(Told(1, peer(0), (Claim(peer(40), "alive", 1),)))
    first = detector.until(Tell)
    assert detector.now - heard_at < PARAMS.gossip_s
    assert first.claims == (Claim(peer(40), "alive", 1),)
    detector.never(PeerMissed, within_s=10.0)
    assert detector.said().count(Claim(peer(40), "alive", 1)) == times_max(14)
    detector.done.clear()
    detector.never(Tell, within_s=10.0)


def test_equal_tables_are_compared_without_sending_them() -> None:
    detector = among(5)
    digest = detector.state.table.digest
    assert detector.hear(SyncAsked(4, peer(0), digest)) == [AnswerSync(4, digest, ())]
    assert detector.hear(SyncAnswered(peer(0), digest, ())) == []


def test_of_different_tables_the_whole_is_sent_and_the_asker_tells_what_it_knows_better() -> None:
    one, other = among(5), among(3)
    other.hear(Told(1, peer(0), (Claim(peer(2), "alive", 6),)))
    (answer,) = of_kind(other.hear(SyncAsked(4, ME, one.state.table.digest)), AnswerSync)
    effects = one.hear(SyncAnswered(peer(2), answer.digest, answer.rows))
    assert MemberChanged(peer(2), "alive", "alive", 6) in effects
    (tell,) = of_kind(effects, Tell)
    assert set(tell.claims) == {Claim(peer(3), "alive", 1), Claim(peer(4), "alive", 1)}


def test_a_table_too_large_for_a_message_is_sent_in_windows_that_cover_it() -> None:
    everybody = tuple(Claim(peer(number), "alive", 1) for number in range(3000))
    state, _ = machine.step(new(ME, 1), Heard(peer(0), everybody), 0.0)
    sent: set[Claim] = set()
    for _ in range(20):
        state, effects = machine.step(state, SyncAsked(1, peer(0), 0), 0.0)
        (answer,) = of_kind(list(effects), AnswerSync)
        assert len(answer.rows) == ROWS_PER_MESSAGE
        sent |= set(answer.rows)
        state, _ = machine.step(state, TimePassed(), machine.wake_at(state))
    assert len(sent) > 2500


def test_a_table_is_compared_with_a_random_member_now_and_then() -> None:
    detector = among(5)
    asked, at = [], []
    while len(asked) < 6:
        for effect in detector.tick():
            if isinstance(effect, AskSync):
                asked.append(effect.peer)
                at.append(detector.now)
            if isinstance(effect, Probe):
                detector.hear(ProbeAnswered(effect.number, ()))
    assert len(set(asked)) > 1
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert all(0.9 * PARAMS.sync_s <= gap <= 1.1 * PARAMS.sync_s for gap in gaps)


def test_of_two_that_meet_the_lower_compares() -> None:
    assert of_kind(among(1).hear(MemberMet(peer(0), 1)), AskSync)
    lower = Detector(new(ME, 1)).hear(MemberMet("AAAAAAAA", 1))  # type: ignore[arg-type]
    assert not of_kind(lower, AskSync)


def test_old_tombstones_are_buried() -> None:
    detector = among(3, params=Params(bury_s=50.0))
    detector.hear(Told(1, peer(0), (Claim(peer(2), "left", 1),)))
    detector.never(PeerMissed, within_s=100.0)
    assert detector.state.table.state_of(peer(2)) is None


# --- those who are slow ---------------------------------------------------------------------------


def test_who_asks_us_something_while_it_owes_an_answer_is_not_accused() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    detector.hear(ProbeHeard(1, probe.peer, ()))
    detector.now += PARAMS.timeout_s
    effects = detector.hear(TimePassed())
    assert PeerMissed(probe.peer) in effects, "no work is sent there all the same"
    assert not of_kind(effects, AskHelp), "there is nothing to learn from others"
    detector.now += PARAMS.timeout_s
    effects = detector.hear(TimePassed())
    assert PeerMissed(probe.peer) in effects
    assert detector.state.table.state_of(probe.peer) == "alive"
    assert detector.state.health == 1


def test_a_suspicion_begins_anew_with_each_word_of_the_suspect() -> None:
    detector = among(2)
    accuse(detector, 1)
    wait_s = detector.state.verdict_at - detector.now
    detector.now += wait_s / 2
    detector.hear(SyncAsked(1, peer(1), 0))
    assert detector.state.verdict_at == pytest.approx(detector.now + wait_s)


def test_an_answer_that_was_overdue_makes_us_trust_ourselves_less() -> None:
    detector = among(6)
    probe = detector.until(Probe)
    detector.now += PARAMS.timeout_s
    detector.hear(TimePassed())
    detector.hear(ProbeAnswered(probe.number, ()))
    assert detector.state.health == 1
    assert len(detector.state.probes) == 1, "the next one was due at the same moment"
    detector.answer_all()
    assert detector.state.health == 0


def test_that_a_helper_reached_it_says_nothing_of_our_own_health() -> None:
    detector = among(6)
    detector.state = replace(detector.state, health=2)
    probe = detector.until(Probe)
    detector.now += 3 * PARAMS.timeout_s
    detector.hear(TimePassed())
    before = detector.state.health
    detector.hear(HelpAnswered(probe.number, has_reached=True, claims=()))
    assert probe.number not in detector.state.probes
    assert detector.state.health == before > 0


def test_who_is_not_well_gives_suspects_more_time_and_passes_news_on_less_often() -> None:
    waits, pauses = [], []
    for health in (0, 3):
        detector = among(6)
        detector.state = replace(detector.state, health=health)
        accuse(detector, 1)
        waits.append(detector.state.verdict_at - detector.now)
        detector.until(Tell)
        pauses.append(detector.state.gossip_at - detector.now)
    assert waits[1] == pytest.approx(4 * waits[0])
    assert pauses[1] == pytest.approx(4 * pauses[0])
