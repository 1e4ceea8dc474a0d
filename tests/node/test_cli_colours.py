"""Colours, where somebody looks and wants them."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.cli_colours import BOLD, GREEN, RED, RESET, YELLOW, may_colour, paint


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_are_for_terminals_whose_owner_wants_them(
    stream: io.StringIO, environ: dict[str, str], *, expected: bool
) -> None:
    assert may_colour(stream, environ) is expected


def test_a_table_has_a_bold_heading_and_states_in_colour() -> None:
    table = "NAME   STATE    LOAD\nbox    member   0\nfailed  absent  -\nold    suspect"
    heading, box, failed, old = paint(table).split("\n")
    assert heading == f"{BOLD}NAME   STATE    LOAD{RESET}"
    assert box == f"box    {GREEN}member{RESET}   0"
    assert f"  {RED}absent{RESET}  -" in failed
    assert old == f"old    {YELLOW}suspect{RESET}"


def test_words_within_a_sentence_are_no_states() -> None:
    said = "the peer failed to answer, and a member left"
    assert paint(said) == said


@given(
    st.text("ab AB\n")
    | st.lists(st.sampled_from(["failed", "ok", "NAME", "  ", "\n"])).map("".join)
)
def test_colours_change_no_letter(text: str) -> None:
    assert re.sub(r"\x1b\[\d+m", "", paint(text)) == text
