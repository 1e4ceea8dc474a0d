"""The past of a session: one hash for which cells ran in it, with which code, in which order."""

from __future__ import annotations

import hashlib
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from kowalski.protocol.ids import ContentHash
from kowalski.protocol.session_past import NOTHING, past_with

cells = st.lists(st.tuples(st.integers(0, 20), st.text(max_size=8)), max_size=5)


def past_of(ran: list[tuple[int, str]]) -> ContentHash:
    return reduce(lambda past, cell: past_with(past, *cell), ran, NOTHING)


@given(cells, cells)
def test_two_sessions_have_one_past_if_and_only_if_they_ran_the_same(
    one: list[tuple[int, str]], other: list[tuple[int, str]]
) -> None:
    assert (past_of(one) == past_of(other)) == (one == other)


def test_it_is_what_the_wire_says() -> None:
    assert NOTHING == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    said = f"{NOTHING} 3 x = 1".encode()
    assert past_with(NOTHING, 3, "x = 1") == hashlib.sha256(said).hexdigest()


def test_code_that_is_no_text_has_a_past_as_well() -> None:
    assert past_with(NOTHING, 0, "\udcff") != past_with(NOTHING, 0, "")
