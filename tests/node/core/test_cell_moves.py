"""What becomes of a cell whose peer did not bring it to its end."""

from __future__ import annotations

import pytest

from kowalski.node.core.cell_moves import (
    MOVES_MAX,
    NAMES_MAX,
    Again,
    Cell,
    GiveUp,
    How,
    after,
    differing,
)
from kowalski.protocol.messages.repl import Variable
from kowalski.protocol.messages.task import TaskSpec

FRESH = Cell(has_begun=False, has_past=False)
BEGUN = Cell(has_begun=True, has_past=False)
LATER = Cell(has_begun=False, has_past=True)


def spec(**more: object) -> TaskSpec:
    fields = {"prompt": "x", "max_iterations": 1, "timeout_s": 1.0, **more}
    return TaskSpec.model_validate(fields)


def test_one_that_is_full_is_asked_again_and_nobody_has_moved() -> None:
    assert after(spec(failover="fail"), BEGUN, "busy", 99) == Again(0.0, is_move=False)


@pytest.mark.parametrize("how", ["refused", "forgotten", "lost"])
def test_by_default_it_goes_elsewhere_at_once_but_not_for_ever(how: How) -> None:
    assert after(spec(), BEGUN, how, MOVES_MAX - 1) == Again(0.0)
    assert after(spec(), BEGUN, how, MOVES_MAX) == GiveUp("peers_failed")


def test_after_a_loss_there_are_as_many_retries_and_pauses_as_the_task_says() -> None:
    patient = spec(retry={"retries_max": 2, "delay_s": 3.0})
    assert [after(patient, BEGUN, "lost", moves) for moves in range(3)] == [
        Again(3.0),
        Again(6.0),
        GiveUp("peers_failed"),
    ]
    assert after(patient, BEGUN, "refused", 2) == Again(0.0), "nothing was lost"


def test_a_task_that_queues_moves_on_however_few_retries_it_has() -> None:
    assert after(spec(failover="queue", retry={"retries_max": 0}), BEGUN, "lost", 2) == Again(0.0)


def test_a_task_that_may_not_fail_over_ends_with_the_device_and_not_with_a_refusal() -> None:
    assert after(spec(failover="fail"), BEGUN, "lost", 0) == GiveUp("device_failed")
    assert after(spec(failover="fail"), FRESH, "refused", 0) == Again(0.0)


@pytest.mark.parametrize(
    ("cell", "how", "outcome"),
    [
        (FRESH, "refused", Again(0.0)),
        (BEGUN, "refused", Again(0.0)),
        (FRESH, "forgotten", Again(0.0)),
        (BEGUN, "forgotten", GiveUp("unknown")),
        (LATER, "forgotten", GiveUp("unknown")),
        (FRESH, "lost", GiveUp("unknown")),
    ],
)
def test_what_may_happen_once_at_most_ends_unknown_rather_than_twice(
    cell: Cell, how: How, outcome: Again | GiveUp
) -> None:
    assert after(spec(side_effects="at_most_once"), cell, how, 0) == outcome


def test_variables_that_came_back_otherwise_are_named() -> None:
    def left(**digests: str) -> list[Variable]:
        return [Variable(name=name, digest=digest) for name, digest in digests.items()]

    before = left(now="00000001", kept="00000002", gone="00000003")
    after_all = left(new="00000004", kept="00000002", now="00000005")
    assert differing(before, after_all) == ("gone", "new", "now")
    assert differing(before, before[::-1]) == ()
    many = left(**{f"v{number:03}": "00000000" for number in range(200)})
    assert len(differing(many, ())) == NAMES_MAX
