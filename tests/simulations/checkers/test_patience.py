"""A submitter that waits too long for a coordinator that says nothing is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.mesh.membership_certificates import MeshRoot
from kowalski.node.core import task_ledger
from kowalski.node.core.task_ledger import Task
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.task import TaskSpec
from simulations.checkers.patience import SILENCE_S, SLACK_S, Silences
from simulations.places import Place, make_place
from simulations.witness import Witness
from simulations.world import Part
from tests.simulations.looking import PEERS, broken, witness_of

NAME = TaskId("task")
SPEC = TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0)
RUNNING = Task(NAME, SPEC, 0, state="running", term=1, coordinator=PEERS[1])
GRANT = (task_ledger.GrantTerm(RUNNING, (), ()),)
PATIENCE_S = SILENCE_S + SLACK_S


class Ledger:
    """What a checker hears of node 0, at times of the test's choosing."""

    machine = "kowalski.node.core.task_ledger"
    state = task_ledger.TaskLedger()
    recorder = ()

    def __init__(self, folder: Path) -> None:
        self.witness: Witness = witness_of()
        self.silences = Silences(self.witness)
        self.place: Place = make_place(0, Part(), MeshRoot(bytes(32)), folder, seed=1)
        self.now = 0.0

    def at(self, now: float) -> None:
        self.witness._times[0].offset_s = now

    def hear(self, event: object, effects: tuple[object, ...] = ()) -> None:
        self.silences.stepped(0, self, event, effects)

    def look(self, at: float) -> list[str]:
        self.at(at)
        self.silences.look(self.place, RUNNING)
        return broken(self.witness)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def test_silence_since_the_grant_is_noticed(ledger: Ledger) -> None:
    ledger.hear(task_ledger.TimePassed(), GRANT)
    assert not ledger.look(PATIENCE_S)
    assert ledger.look(PATIENCE_S + 0.1) == ["silence_is_noticed"]


def test_a_word_of_the_coordinator_is_a_sign_of_life_and_the_same_grant_is_none(
    ledger: Ledger,
) -> None:
    ledger.hear(task_ledger.TimePassed(), GRANT)
    ledger.at(3.0)
    ledger.hear(task_ledger.CoordinatorHeard(NAME, 1))
    ledger.at(6.0)
    ledger.hear(task_ledger.TimePassed(), GRANT)
    assert not ledger.look(3.0 + PATIENCE_S)
    assert ledger.look(3.1 + PATIENCE_S) == ["silence_is_noticed"]


@pytest.mark.parametrize("how", ["full", "slow", "frozen"])
def test_who_cannot_do_anything_about_it_is_excused(ledger: Ledger, how: str) -> None:
    ledger.hear(task_ledger.TimePassed(), GRANT)
    match how:
        case "full":
            ledger.place.disk.is_full = 1
        case "slow":
            ledger.place.disk.slow_s = 1.0
        case _:
            ledger.place.time.freeze(0.0, 100.0)
    assert not ledger.look(50.0)


def test_a_new_process_begins_anew(ledger: Ledger) -> None:
    ledger.hear(task_ledger.TimePassed(), GRANT)
    ledger.silences.began(0)
    assert not ledger.look(50.0)
