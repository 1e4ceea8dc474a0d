"""How long suspects have, and when there are too many of them to believe it."""

from __future__ import annotations

from dataclasses import replace
from math import log10

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.suspicion import (
    Params,
    Suspicion,
    due_at,
    is_mass_failure,
    waits,
)
from kowalski.protocol.ids import PeerId

A, B, C, D = (PeerId(name * 8) for name in "ABCD")
PARAMS = Params()


def by(*accusers: PeerId) -> Suspicion:
    return Suspicion(1, 100.0, frozenset(accusers))


def test_one_accuser_waits_long_and_each_further_one_shortens_it_to_the_least() -> None:
    table = waits(PARAMS, 0.5, 50)
    least_s = 3 * log10(50) * 0.5
    times = [due_at(by(*accusers), table) for accusers in ((A,), (A, B), (A, B, C), (A, B, C, D))]
    assert times[0] == pytest.approx(100 + 6 * least_s)
    assert times[0] > times[1] > times[2]
    assert times[2] == times[3] == pytest.approx(100 + least_s)


def test_who_doubts_itself_waits_longer() -> None:
    table = waits(PARAMS, 0.5, 50)
    patient = replace(by(A, B, C), patience=2.0)
    assert due_at(patient, table) - 100 == pytest.approx(2 * (due_at(by(A, B, C), table) - 100))


def test_where_nobody_could_confirm_the_wait_is_the_least() -> None:
    assert due_at(by(A), waits(PARAMS, 0.5, 2)) == 100 + 3 * 0.5
    assert len(waits(PARAMS, 0.5, 3).by_confirmations) == 2


def test_a_suspicion_without_a_name_counts_as_one_accuser() -> None:
    table = waits(PARAMS, 0.5, 10)
    assert due_at(by(), table) == due_at(by(A), table)


def test_a_verdict_that_is_held_waits_the_longest_time_once_more() -> None:
    table = waits(PARAMS, 0.5, 10)
    held = replace(by(A, B, C), is_held=True)
    assert due_at(held, table) - due_at(by(A, B, C), table) == pytest.approx(6 * 1.5)


@given(st.integers(2, 10_000), st.floats(0.1, 10.0), st.integers(0, 5))
def test_more_accusers_never_lengthen_the_wait(
    size: int, interval_s: float, confirmations: int
) -> None:
    table = waits(Params(confirmations=confirmations), interval_s, size)
    steps = table.by_confirmations
    assert list(steps) == sorted(steps, reverse=True)
    assert steps[-1] >= 3 * interval_s * 0.999
    assert steps[0] <= table.reprieve_s * 1.001


@pytest.mark.parametrize(
    ("suspects", "others", "is_mass"),
    [
        (1, 1, False),
        (1, 2, False),
        (2, 2, True),
        (2, 6, False),
        (3, 7, True),
        (3, 9, False),
        (17, 49, True),
        (16, 49, False),
    ],
)
def test_more_than_a_third_and_at_least_two_are_too_many(
    suspects: int, others: int, is_mass: bool
) -> None:
    assert is_mass_failure(suspects, others) is is_mass
