"""Named bugs: the code still has the lines they change, and a hunt finds one and no other."""

from __future__ import annotations

import pytest

from simulations import mutants, scenarios
from simulations.mutants import MUTANTS, Mutant
from simulations.mutation import Change, StaleMutantError


def test_there_are_at_least_twelve_and_each_says_what_it_breaks() -> None:
    assert len(MUTANTS) >= 12
    assert len({mutant.about for mutant in MUTANTS.values()}) == len(MUTANTS)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_line_that_a_mutant_changes_is_there(name: str) -> None:
    mutant = MUTANTS[name]
    assert mutant.scenario in scenarios.names()
    assert mutant.seeds >= 1
    for change in mutant.changes:
        change.check()


def test_a_mutant_is_found_in_a_process_of_its_own() -> None:
    (done,) = mutants.hunt_all(["term-not-saved"], jobs=1)
    assert done.found.startswith("term_is_saved_first: ")
    assert 1 <= done.seeds <= MUTANTS["term-not-saved"].seeds


def test_a_stale_mutant_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Mutant("what is no more", (Change("node/core/fences.py", "not there", ""),))
    monkeypatch.setitem(MUTANTS, "stale", stale)
    with pytest.raises(StaleMutantError, match="not there"):
        list(mutants.hunt_all(["stale"], jobs=1))
