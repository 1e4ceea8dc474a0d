"""Each promise about terms, broken on purpose, is seen; kept, it is counted."""

from __future__ import annotations

import pytest

from kowalski.mesh.identity import identity_from_seed
from kowalski.node.core.coordinator_lease import Patience
from kowalski.node.core.task_ledger import GrantTerm, Task
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Refused
from kowalski.protocol.messages.copies import CopyHeld
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import CellAsked, SessionClosed
from kowalski.protocol.messages.task import Grant, Renewal, TaskSpec
from kowalski.rlm.journal import GENESIS
from simulations.checkers.terms import Fences, Leases, Terms
from simulations.witness import Witness
from tests.simulations.looking import PEERS, broken, said, witness_of

TASK = TaskId("task")
STRANGER = identity_from_seed(bytes([99]) * 32).peer
SPEC = TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0)


def task(term: int, coordinator: PeerId = PEERS[1]) -> Task:
    return Task(TASK, SPEC, 0, state="running", term=term, coordinator=coordinator)


def grant(term: int, *standbys: PeerId, submitter: PeerId | None = None) -> Grant:
    return Grant(
        task=TASK,
        term=term,
        spec=SPEC,
        prefix_entries=0,
        last_digest=GENESIS,
        standbys=standbys,
        lease_s=3.0,
        remaining_s=10.0,
        submitter=submitter,
    )


def cell(term: int, submitter: PeerId = PEERS[0]) -> CellAsked:
    return CellAsked(
        task=TASK,
        term=term,
        cell=0,
        language="python",
        code="say x",
        timeout_s=1.0,
        remaining_s=1.0,
        claim=Claim(submitter=submitter),
    )


@pytest.fixture
def witness() -> Witness:
    return witness_of()


class TestTerms:
    def issue(self, terms: Terms, one: Task, *, saved: Task | None = None) -> None:
        terms.stored(0, "save", (saved or one,))
        terms.stepped(0, None, None, (GrantTerm(one, ()),))  # type: ignore[arg-type]

    def test_terms_that_rise_and_are_saved_first_are_fine(self, witness: Witness) -> None:
        terms = Terms(witness)
        self.issue(terms, task(1))
        terms.said(said(grant(1)))
        self.issue(terms, task(1))
        self.issue(terms, task(2, PEERS[2]))
        terms.said(said(grant(2), hearer=2))
        assert not broken(witness)
        assert witness.evaluated["one_coordinator_per_term"] == 5

    def test_a_term_granted_before_it_is_saved(self, witness: Witness) -> None:
        self.issue(Terms(witness), task(2), saved=task(1))
        assert broken(witness) == ["term_is_saved_first"]

    def test_a_term_below_the_last(self, witness: Witness) -> None:
        terms = Terms(witness)
        self.issue(terms, task(2))
        terms.stored(0, "save", (task(1),))
        assert broken(witness) == ["term_monotone"]

    def test_one_term_for_two(self, witness: Witness) -> None:
        terms = Terms(witness)
        self.issue(terms, task(1))
        self.issue(terms, task(1, PEERS[2]))
        assert broken(witness) == ["one_coordinator_per_term"]

    @pytest.mark.parametrize(("term", "hearer"), [(2, 1), (1, 2)])
    def test_a_grant_on_the_wire_that_was_never_issued(
        self, witness: Witness, term: int, hearer: int
    ) -> None:
        terms = Terms(witness)
        self.issue(terms, task(1))
        terms.said(said(grant(term), hearer=hearer))
        assert broken(witness) == ["one_coordinator_per_term"]

    def test_a_detached_task_is_granted_by_who_leads_it(self, witness: Witness) -> None:
        Terms(witness).said(said(grant(7, submitter=PEERS[2]), speaker=1, hearer=1))
        assert not broken(witness)

    def test_a_strangers_grant_is_not_ours_to_judge(self, witness: Witness) -> None:
        Terms(witness).said(said(grant(7), speaker=-1))
        assert not broken(witness)


class TestFences:
    def ask(self, fences: Fences, term: int, request: int, reply: object) -> None:
        fences.heard(said(cell(term), request=request))
        answer = said(reply, speaker=1, hearer=0, request=request, by_asker=False)  # type: ignore[arg-type]
        fences.said(answer._replace(is_last=True, is_first=False))

    def test_a_lower_term_is_refused_as_stale(self, witness: Witness) -> None:
        fences = Fences(witness)
        self.ask(fences, 2, 1, SessionClosed(task=TASK, term=2))
        self.ask(fences, 1, 2, Refused(reason="stale"))
        assert not broken(witness)
        assert witness.evaluated["fence_monotone"] == 1

    def test_a_lower_term_that_is_served_is_seen(self, witness: Witness) -> None:
        fences = Fences(witness)
        self.ask(fences, 2, 1, SessionClosed(task=TASK, term=2))
        self.ask(fences, 1, 2, SessionClosed(task=TASK, term=1))
        assert broken(witness) == ["fence_monotone"]

    def test_the_tasks_of_two_submitters_may_have_one_name(self, witness: Witness) -> None:
        fences = Fences(witness)
        fences.heard(said(grant(2), speaker=0, request=1))
        begun = said(cell(2), speaker=1, hearer=0, request=1, by_asker=False, is_first=False)
        fences.said(begun)
        fences.heard(said(grant(1), speaker=2, request=2))
        fences.said(begun._replace(hearer=2, request=2))
        assert not broken(witness)
        fences.heard(said(grant(1), speaker=0, request=3))
        fences.said(begun._replace(request=3))
        assert broken(witness) == ["fence_monotone"]

    def test_what_was_never_answered_may_never_have_been_read(self, witness: Witness) -> None:
        fences = Fences(witness)
        fences.heard(said(cell(2), request=1))
        self.ask(fences, 1, 2, SessionClosed(task=TASK, term=1))
        assert not broken(witness)

    def test_a_new_process_has_heard_nothing(self, witness: Witness) -> None:
        fences = Fences(witness)
        self.ask(fences, 2, 1, SessionClosed(task=TASK, term=2))
        fences.began(1)
        self.ask(fences, 1, 2, SessionClosed(task=TASK, term=1))
        assert not broken(witness)


class TestLeases:
    def granted(self, leases: Leases, *standbys: int) -> None:
        message = grant(1, *(PEERS[number] for number in standbys))
        leases.heard(said(message, speaker=0, hearer=1, own_s=10.0))

    def send(self, leases: Leases, at_s: float) -> None:
        leases.said(said(cell(1), speaker=1, hearer=2, own_s=at_s))

    def test_within_the_lease_and_its_renewals(self, witness: Witness) -> None:
        leases = Leases(witness)
        self.granted(leases)
        self.send(leases, 12.9)
        renewal = Renewal(task=TASK, term=1, lease_s=3.0, remaining_s=1.0)
        leases.heard(said(renewal, hearer=1, own_s=12.0))
        self.send(leases, 14.9)
        assert not broken(witness)
        assert witness.evaluated["lease_stop"] == 2

    @pytest.mark.parametrize("at_s", [13.2, 17.0])
    def test_after_it(self, witness: Witness, at_s: float) -> None:
        leases = Leases(witness)
        self.granted(leases, 2)
        self.send(leases, at_s)
        assert broken(witness) == ["lease_stop"]

    def test_holding_on_by_the_word_of_a_standby(self, witness: Witness) -> None:
        leases = Leases(witness)
        self.granted(leases, 2)
        held = CopyHeld(task=TASK, entries=0, digest=GENESIS)
        leases.heard(said(held, speaker=2, hearer=1, own_s=17.0, by_asker=False))
        self.send(leases, 13.0 + Patience().hold_after_s + 0.1)
        assert not broken(witness)
        self.send(leases, 17.0 + Patience().witness_s + 1.0)
        assert broken(witness) == ["lease_stop"]

    def test_renewals_on_a_machine_that_sleeps_may_never_have_been_read(
        self, witness: Witness
    ) -> None:
        leases = Leases(witness)
        self.granted(leases, 3)
        renewal = Renewal(task=TASK, term=1, lease_s=3.0, remaining_s=1.0)
        hold_at = 13.0 + Patience().hold_after_s
        leases.heard(said(renewal, speaker=0, hearer=1, own_s=hold_at - 4.0))
        held = CopyHeld(task=TASK, entries=0, digest=GENESIS)
        leases.heard(said(held, speaker=3, hearer=1, own_s=hold_at, by_asker=False))
        self.send(leases, hold_at + 0.1)
        assert not broken(witness)

    def test_a_strangers_task_of_the_same_name_has_a_lease_of_its_own(
        self, witness: Witness
    ) -> None:
        leases = Leases(witness)
        self.granted(leases)
        leases.heard(said(grant(1), speaker=-1, hearer=1, own_s=5.0, request=2))
        renewal = Renewal(task=TASK, term=1, lease_s=30.0, remaining_s=1.0)
        leases.heard(said(renewal, speaker=-1, hearer=1, own_s=6.0, request=2))
        leases.said(said(cell(1, STRANGER), speaker=1, hearer=2, own_s=35.0))
        self.send(leases, 12.9)
        assert not broken(witness)
        self.send(leases, 13.2)
        assert broken(witness) == ["lease_stop"]

    def test_a_detached_task_has_a_lease_that_its_leader_renews_for_itself(
        self, witness: Witness
    ) -> None:
        leases = Leases(witness)
        granted = said(grant(1, submitter=PEERS[3]), speaker=1, hearer=1, own_s=10.0)
        leases.heard(granted)
        renewal = Renewal(task=TASK, term=1, lease_s=3.0, remaining_s=1.0)
        leases.heard(granted._replace(message=renewal, own_s=12.0))
        sent = said(cell(1, PEERS[3]), speaker=1, hearer=2, own_s=14.9)
        leases.said(sent)
        assert not broken(witness)
        leases.said(sent._replace(own_s=15.2))
        assert broken(witness) == ["lease_stop"]

    def test_the_word_of_somebody_else_does_not_count(self, witness: Witness) -> None:
        leases = Leases(witness)
        self.granted(leases, 2)
        held = CopyHeld(task=TASK, entries=0, digest=GENESIS)
        leases.heard(said(held, speaker=3, hearer=1, own_s=17.0, by_asker=False))
        self.send(leases, 18.5)
        assert broken(witness) == ["lease_stop"]
