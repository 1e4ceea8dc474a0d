"""`evolve` does what `dataclasses.replace` does, on states that have no slots."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from kowalski.mesh.core.evolving import evolve


@dataclass(frozen=True)
class State:
    turn: int = 0
    names: tuple[str, ...] = ()
    table: dict[str, int] = field(default_factory=dict)


def test_the_changed_state_is_what_replace_would_make_of_it() -> None:
    before = State(1, ("a",), {"a": 1})
    after = evolve(before, turn=2, names=("a", "b"))
    assert after == replace(before, turn=2, names=("a", "b"))
    assert type(after) is State


def test_the_state_before_is_as_it_was_and_rows_are_shared() -> None:
    before = State(1, ("a",), {"a": 1})
    after = evolve(before, turn=2)
    assert before == State(1, ("a",), {"a": 1})
    assert after.table is before.table


def test_a_field_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="State has no field tern"):
        evolve(State(), tern=2)  # type: ignore[call-arg]


def test_what_it_made_is_as_frozen_as_before() -> None:
    with pytest.raises(AttributeError, match="turn"):
        evolve(State(), turn=2).turn = 3  # type: ignore[misc]
