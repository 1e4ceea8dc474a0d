"""Whose task is meant, where two of one name are about."""

from __future__ import annotations

from kowalski.mesh.identity import identity_from_seed
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.repl import SessionClosed
from kowalski.protocol.messages.task import Grant, Renewal, TaskSpec
from kowalski.rlm.journal import GENESIS
from simulations.checkers.submitters import Submitters
from tests.simulations.looking import PEERS, said, witness_of

TASK = TaskId("task")
STRANGER = identity_from_seed(bytes([99]) * 32).peer
GRANT = Grant(
    task=TASK,
    term=1,
    spec=TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0),
    prefix_entries=0,
    last_digest=GENESIS,
    lease_s=3.0,
    remaining_s=10.0,
)
RENEWAL = Renewal(task=TASK, term=1, lease_s=3.0, remaining_s=10.0)


def test_a_grant_is_of_who_grants_it_and_of_a_detached_task_of_who_had_submitted_it() -> None:
    submitters = Submitters(witness_of())
    assert submitters.of(said(GRANT, speaker=2)) == 2
    detached = GRANT.model_copy(update={"submitter": PEERS[3]})
    assert submitters.of(said(detached, speaker=2, hearer=2)) == 3
    assert submitters.of(said(GRANT, speaker=-1)) == -1


def test_what_follows_a_grant_on_its_stream_is_about_the_same_task() -> None:
    submitters = Submitters(witness_of())
    submitters.of(said(GRANT.model_copy(update={"submitter": PEERS[3]}), speaker=2, request=7))
    assert submitters.of(said(RENEWAL, speaker=2, request=7)) == 3
    assert submitters.of(said(RENEWAL, speaker=2, request=8)) == 2


def test_a_session_is_closed_in_the_name_of_its_tasks_submitter() -> None:
    submitters = Submitters(witness_of())
    closed = SessionClosed(task=TASK, term=1)
    assert submitters.of(said(closed, speaker=1)) == 1
    of_a_stranger = closed.model_copy(update={"submitter": STRANGER})
    assert submitters.of(said(of_a_stranger, speaker=1)) == -1
