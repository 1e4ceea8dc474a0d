"""Anything may happen to a failure detector, in any order: what must hold, holds."""

from __future__ import annotations

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kowalski.mesh.core import failure_detector as machine
from kowalski.mesh.core.failure_detector_events import (
    AskHelp,
    ConnectionLost,
    Effect,
    Event,
    Heard,
    HelpAnswered,
    HelpAsked,
    HelpFailed,
    KeepIncarnation,
    MemberChanged,
    MemberExpelled,
    MemberMet,
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
from kowalski.mesh.core.failure_detector_state import FailureDetector, Params, new
from kowalski.mesh.core.membership import RANK, Claim, Held, Member, rows
from kowalski.mesh.core.rumours import CLAIMS_PER_MESSAGE
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import CLAIMS_MAX
from tests.mesh.core.detectors import ME, SAYING, peer

PEERS = st.integers(0, 7).map(peer)
CLAIM = st.builds(
    Claim,
    st.one_of(PEERS, st.just(ME)),
    st.sampled_from(["alive", "suspect", "failed", "left"]),
    st.integers(0, 4),
    st.one_of(st.none(), PEERS),
)
CLAIMS = st.lists(CLAIM, max_size=4).map(tuple)
MEMBERS_MAX = 6


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state: FailureDetector = new(ME, 1, Params(members_max=MEMBERS_MAX))
        self.held: Held | None = None
        self.kept = 1
        self.asked: list[int] = []

    def happens(self, event: Event) -> None:
        before = self.state.table
        self.state, effects = machine.step(self.state, event, self.now)
        machine.check(self.state)
        self.held = machine.check_news(self.state, self.held)
        self.check_words(effects)
        self.check_table(before.members)

    def check_words(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, KeepIncarnation):
                assert effect.incarnation > self.kept
                self.kept = effect.incarnation
            elif isinstance(effect, SAYING):
                limit = 1024 if isinstance(effect, Tell) else CLAIMS_PER_MESSAGE + 1
                assert len(effect.claims) <= min(limit, 1024)
                assert limit <= CLAIMS_MAX or isinstance(effect, Tell)
                # Nothing is said of ourselves that is not on disk.
                own = [claim.incarnation for claim in effect.claims if claim.peer == ME]
                assert max(own, default=0) <= self.kept
            if isinstance(effect, Probe | AskHelp):
                self.asked.append(effect.number)
            if isinstance(effect, MemberChanged):
                assert effect.peer != ME

    def check_table(self, before: dict[PeerId, Member]) -> None:
        is_full = len(before) >= MEMBERS_MAX
        for name, member in self.state.table.members.items():
            known = before.get(name)
            if known is None or (is_full and not known.is_living):
                continue  # perhaps it had to make room for another, and was heard of again
            assert (member.incarnation, RANK[member.state]) >= (
                known.incarnation,
                RANK[known.state],
            )

    # --- what may happen ------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0, 5.0, 100.0]))
    def time_passes_unnoticed(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    @precondition(lambda self: machine.wake_at(self.state) < inf)
    def time_passes_to_the_next_deadline(self) -> None:
        self.now = max(self.now, machine.wake_at(self.state))
        self.happens(TimePassed())

    @rule(peer=PEERS, incarnation=st.integers(0, 5))
    def meet(self, peer: PeerId, incarnation: int) -> None:
        self.happens(MemberMet(peer, incarnation))

    @rule(peer=PEERS)
    def lose(self, peer: PeerId) -> None:
        self.happens(ConnectionLost(peer))

    @rule(peer=PEERS)
    def wonder(self, peer: PeerId) -> None:
        self.happens(RequestUnanswered(peer))

    @rule(peer=PEERS)
    def expel(self, peer: PeerId) -> None:
        self.happens(MemberExpelled(peer))

    @rule(peer=PEERS, claims=CLAIMS)
    def be_probed(self, peer: PeerId, claims: tuple[Claim, ...]) -> None:
        self.happens(ProbeHeard(1, peer, claims))

    @rule(peer=PEERS, claims=CLAIMS)
    def be_told(self, peer: PeerId, claims: tuple[Claim, ...]) -> None:
        self.happens(Told(1, peer, claims))
        self.happens(Heard(peer, claims))

    @rule(peer=PEERS, lost=PEERS, claims=CLAIMS)
    def be_asked_for_help(self, peer: PeerId, lost: PeerId, claims: tuple[Claim, ...]) -> None:
        self.happens(HelpAsked(1, peer, lost, 0.5, claims))

    @rule(back=st.integers(0, 12), claims=CLAIMS, what=st.integers(0, 4))
    def an_answer_comes(self, back: int, claims: tuple[Claim, ...], what: int) -> None:
        """Perhaps late, twice, or to a question that was never asked."""
        number = self.asked[-back] if 0 < back <= len(self.asked) else back
        self.happens(
            [
                ProbeAnswered(number, claims),
                ProbeFailed(number),
                HelpAnswered(number, has_reached=True, claims=claims),
                HelpAnswered(number, has_reached=False, claims=claims),
                HelpFailed(number),
            ][what]
        )

    @rule(peer=PEERS, rows=CLAIMS)
    def compare(self, peer: PeerId, rows: tuple[Claim, ...]) -> None:
        self.happens(SyncAsked(1, peer, 0))
        self.happens(SyncAnswered(peer, 0, rows))

    @rule()
    def wake(self) -> None:
        self.happens(Woke(100.0))

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def waking_at_the_deadline_moves_the_deadline(self) -> None:
        """The law of progress."""
        state, now = self.state, self.now
        for _ in range(3):
            at = machine.wake_at(state)
            if at == inf:
                return
            now = max(now, at)
            state, _ = machine.step(state, TimePassed(), now)
        assert machine.wake_at(state) > at or state.probe_at <= now

    @invariant()
    def what_was_heard_is_not_news_again(self) -> None:
        again = tuple(rows(self.state.table))
        state, effects = machine.step(self.state, Heard(peer(0), again), self.now)
        assert state.table is self.state.table
        assert not [effect for effect in effects if isinstance(effect, MemberChanged)]

    @invariant()
    def the_same_history_leads_to_the_same_place(self) -> None:
        one = machine.step(self.state, TimePassed(), self.now + 1.0)
        other = machine.step(self.state, TimePassed(), self.now + 1.0)
        assert one == other


AnyHistory.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestAnyHistory = AnyHistory.TestCase
