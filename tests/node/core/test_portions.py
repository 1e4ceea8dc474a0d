"""As many entries as one message should carry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.portions import BYTES_MAX, ENTRIES_MAX, portion
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS


def entries(*sizes: int) -> list[Entry]:
    return [
        Entry(term=1, index=n, parent=GENESIS, body=bytes(size)) for n, size in enumerate(sizes)
    ]


def test_many_small_ones_go_in_pieces_of_sixty_four() -> None:
    assert len(portion(entries(*[10] * 200))) == ENTRIES_MAX


def test_one_that_is_larger_than_a_piece_goes_alone() -> None:
    assert len(portion(entries(BYTES_MAX + 1, 1))) == 1
    assert len(portion(entries(1, BYTES_MAX + 1))) == 1


def test_of_none_there_is_none() -> None:
    assert portion([]) == ()


@given(st.lists(st.integers(0, BYTES_MAX), max_size=8))
def test_it_is_a_beginning_that_fits(sizes: list[int]) -> None:
    everything = entries(*sizes)
    chosen = portion(everything)
    assert list(chosen) == everything[: len(chosen)]
    assert bool(chosen) == bool(everything)
    assert len(chosen) == 1 or sum(len(one.body) for one in chosen) <= BYTES_MAX
