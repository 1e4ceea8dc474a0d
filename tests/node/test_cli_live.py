"""Tables for terminals of any width: nothing wraps, and columns stand below one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.cli_live import cell_width, cut, live_table

COLUMNS = ("NAME", "STATE", "LOAD", "WHY NOT")
ROWS = [
    ("a-laptop-with-a-long-name", "alive", "0.50", "-"),
    ("机器", "suspect", "1", "no connection to it at /ip4/192.168.1.5/tcp/4170: refused"),
]


def shown(width: int) -> list[str]:
    return live_table(COLUMNS, ROWS, width, importance=COLUMNS).splitlines()


def test_a_wide_terminal_has_all_of_it() -> None:
    head, first, second = shown(200)
    assert head.split() == ["NAME", "STATE", "LOAD", "WHY", "NOT"]
    assert first.split() == ["a-laptop-with-a-long-name", "alive", "0.50", "-"]
    assert second.endswith("/tcp/4170: refused")


def test_what_is_less_important_goes_first_and_what_stays_is_cut() -> None:
    head, first, second = shown(50)
    assert head.split() == ["NAME", "STATE", "LOAD", "WHY", "NOT"]
    assert first.startswith("a-laptop-w")
    assert "alive" in first
    assert second.endswith("…")
    head, first, _ = shown(30)
    assert head.split() == ["NAME", "STATE", "LOAD"]
    assert first.endswith("0.50")
    assert shown(6) == ["NAME", "a-lap…", "机器"]


def test_a_column_may_be_kept_whole() -> None:
    told = live_table(COLUMNS, ROWS, 36, importance=COLUMNS, whole=("NAME",))
    assert "a-laptop-with-a-long-name  alive" in told
    assert "LOAD" not in told


def test_columns_stand_below_one_another_whatever_a_peer_is_called() -> None:
    head, *lines = shown(60)
    for line in lines:
        before = line[: line.index("alive" if "alive" in line else "suspect")]
        assert cell_width(before) == head.index("STATE")


def test_an_empty_column_is_left_out() -> None:
    told = live_table(("A", "B"), [("x", "-")], 40, importance=("A", "B"))
    assert told == "A\nx"


@given(
    st.lists(st.tuples(*[st.text(max_size=40)] * 4), min_size=1, max_size=4),
    st.integers(8, 120),
)
def test_nothing_is_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int) -> None:
    told = live_table(COLUMNS, rows, width, importance=("NAME", "LOAD", "STATE", "WHY NOT"))
    lines = told.split("\n")
    assert len(lines) == 1 + len(rows)
    assert max(map(cell_width, lines)) <= width


@pytest.mark.parametrize(
    ("text", "width", "told"),
    [
        ("hello", 5, "hello"),
        ("hello", 4, "hel…"),
        ("机器", 3, "机…"),
        ("a\nb\x1b", 9, "a b"),
        ("", 0, ""),
        ("ab", 1, "…"),
    ],
)
def test_a_text_is_cut_to_its_cells(text: str, width: int, told: str) -> None:
    assert cut(text, width) == told
