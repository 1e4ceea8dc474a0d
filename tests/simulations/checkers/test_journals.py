"""Each promise about what becomes visible, broken on purpose, is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kowalski.node.core.task_ledger import Task
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Entry, TaskSpec
from kowalski.rlm.journal import GENESIS, digest, entry_of
from simulations.checkers.journals import Journals, untrue_cells
from simulations.witness import Witness
from tests.simulations.looking import PEERS, broken, witness_of

TASK = TaskId("task")
SPEC = TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0)
CLOSED = journal.Closed(outcome="answered", answer="42")


def entries(*terms: int) -> list[Entry]:
    made: list[Entry] = []
    parent = GENESIS
    for index, term in enumerate(terms):
        made.append(entry_of(term, index, parent, journal.CancelHeard(reason=str(index))))
        parent = digest(TASK, made[-1])
    return made


def task(term: int, of: list[Entry]) -> Task:
    digests = tuple(digest(TASK, one) for one in of)
    return Task(TASK, SPEC, 0, state="running", term=term, entries=len(of), digests=digests)


@pytest.fixture
def witness() -> Witness:
    return witness_of()


@pytest.fixture
def journals(witness: Witness) -> Journals:
    return Journals(witness)


def append(journals: Journals, term: int, made: list[Entry]) -> None:
    """The last of `made`, in a term that is on disk."""
    journals.stored(0, "save", (task(term, made[:-1]),))
    journals.stored(0, "append", (task(term, made), made[-1], digest(TASK, made[-1])))


def test_entries_in_order_are_fine(witness: Witness, journals: Journals) -> None:
    made = entries(1, 1, 3)
    for count in (1, 2, 3):
        append(journals, made[count - 1].term, made[:count])
    journals.look(task(3, made), made)
    assert not broken(witness)
    assert witness.evaluated["visible_once"] == 3
    assert witness.evaluated["durable"] == 2


def test_an_entry_twice(witness: Witness, journals: Journals) -> None:
    made = entries(1)
    append(journals, 1, made)
    append(journals, 1, made)
    assert broken(witness) == ["visible_once", "prefix_chain"]


def test_an_entry_that_follows_from_another(witness: Witness, journals: Journals) -> None:
    append(journals, 1, entries(1))
    other = [*entries(1), entry_of(1, 1, "0" * 64, CLOSED)]
    append(journals, 1, other)
    assert broken(witness) == ["prefix_chain"]


def test_an_entry_of_a_deposed_coordinator(witness: Witness, journals: Journals) -> None:
    append(journals, 2, entries(1))
    assert broken(witness) == ["no_stale_visible"]


def test_a_second_end_and_an_entry_after_it(witness: Witness, journals: Journals) -> None:
    over = replace(task(1, []), state="answered", answer=CLOSED)
    journals.stored(0, "save", (over,))
    assert not broken(witness)
    other = replace(over, answer=CLOSED.model_copy(update={"answer": "43"}))
    journals.stored(0, "save", (other,))
    append(journals, 1, entries(1))
    assert set(broken(witness)) == {"one_end"}


@pytest.mark.parametrize("lost", ["shown", "on disk", "the end"])
def test_what_was_visible_and_is_not(witness: Witness, journals: Journals, lost: str) -> None:
    made = entries(1, 1)
    append(journals, 1, made[:1])
    append(journals, 1, made)
    over = replace(task(1, made), state="answered", answer=CLOSED)
    journals.stored(0, "save", (over,))
    journals.look(over, made)
    assert not broken(witness)
    match lost:
        case "shown":
            journals.look(replace(over, entries=1, digests=over.digests[:1]), made)
        case "on disk":
            journals.look(over, made[:1])
        case _:
            journals.look(replace(over, state="running", answer=None), made)
    assert broken(witness) == ["durable"]


def test_a_disk_whose_entries_do_not_fit(witness: Witness, journals: Journals) -> None:
    made = entries(1, 1)
    append(journals, 1, made[:1])
    append(journals, 1, made)
    journals.look(task(1, made), made[::-1])
    assert "prefix_chain" in broken(witness)


def ran(cell: int, code: str, output: str, *, ends: bool = False) -> list[journal.SessionEvent]:
    return [
        journal.CellStarted(cell=cell, language="python", code=code, peer=PEERS[0]),
        journal.CellFinished(
            cell=cell, peer=PEERS[0], status="ok", output=output, is_session_alive=not ends
        ),
    ]


def test_a_journal_whose_cells_printed_what_they_say_is_true() -> None:
    first = ran(0, "keep x 1\nsay hi", "hi\n")
    assert untrue_cells([*first, *ran(1, "show x", "x is 1\n")]) == []
    assert untrue_cells([*first, *ran(1, "show x", "x is 2\n")]) == [
        "cell 1 printed 'x is 2\\n', not 'x is 1\\n'"
    ]


def test_what_a_cell_set_ends_with_its_session_and_what_was_set_before_is_brought_back() -> None:
    before = [*ran(0, "keep x 1", ""), *ran(1, "keep y 2", "", ends=True)]
    assert untrue_cells([*before, *ran(2, "show x", "x is 1\n")]) == []
    assert untrue_cells([*before, *ran(2, "show y", "NameError: y")]) == []
    assert untrue_cells([*before, *ran(2, "show x", "NameError: x")])
    assert untrue_cells([*before, *ran(2, "show y", "y is 2\n")])
