from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.rlm.truncation import Cut, head_and_tail, printable, text_of

MARK = re.compile(r"\n\[\.\.\. (\d+) characters left out \.\.\.\]\n")


def test_a_text_within_the_limit_is_left_alone() -> None:
    assert head_and_tail("x" * 8192) == Cut("x" * 8192, 0)
    assert head_and_tail("", 0) == Cut("", 0)


def test_both_ends_of_a_long_text_stay_with_the_number_of_what_went() -> None:
    text = "".join(f"line {i}\n" for i in range(10_000))
    cut = head_and_tail(text, 1000)
    assert cut.text.startswith("line 0\nline 1\n")
    assert cut.text.endswith("line 9998\nline 9999\n")
    assert f"[... {cut.omitted_chars} characters left out ...]" in cut.text
    assert 900 < len(cut.text) <= 1000


def test_ends_move_to_line_borders_when_that_is_cheap() -> None:
    text = "".join(f"{i:06} {'x' * 40}\n" for i in range(1000))
    head, _, tail = MARK.split(head_and_tail(text, 2000).text)
    assert head.endswith("\n")
    assert re.match(r"\d{6} x", tail)


def test_a_single_long_line_is_cut_inside_rather_than_dropped() -> None:
    cut = head_and_tail("first\n" + "x" * 100_000 + "\nlast", 1000)
    assert cut.text.count("x") > 850
    assert cut.text.startswith("first\nxxx")
    assert cut.text.endswith("xxx\nlast")


def test_a_limit_without_room_for_the_mark_keeps_the_head() -> None:
    assert head_and_tail("abcdefghij" * 9, 10) == Cut("abcdefghij", 80)


@given(st.text(alphabet="ab \n\u00e9\U0001f600", max_size=300), st.integers(0, 200))
def test_a_cut_keeps_the_limit_and_adds_up(text: str, limit_chars: int) -> None:
    cut = head_and_tail(text, limit_chars)
    assert len(cut.text) <= limit_chars
    parts = MARK.split(cut.text)
    if len(parts) == 3:
        head, omitted, tail = parts
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + int(omitted) + len(tail) == len(text)
        assert int(omitted) == cut.omitted_chars
    else:
        assert text.startswith(cut.text)
        assert cut.omitted_chars == len(text) - len(cut.text)


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    assert text_of(b"caf\xc3\xa9 \xff") == "caf\u00e9 \ufffd"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hhome", "home"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;cGFzdGU=\x9cafter", "after"),
        ("\x9b31mred", "red"),
        ("\x1bP1;2qdata\x1b\\after", "after"),
        ("\x1b_payload\x1b\\after", "after"),
        ("\x1b(0lqk", "lqk"),
        ("\x1bcreset", "reset"),
        ("\x1b]0;never ends", "0;never ends"),
        ("\x1b\x1b[0m[31mtwice", "[31mtwice"),
        ("bell\x07 back\x08 nul\x00 del\x7f", "bell back nul del"),
        ("good\rbad", "good\nbad"),
        ("dos\r\nline\ttab\n", "dos\nline\ttab\n"),
        ("access\u202e\u2066level", "accesslevel"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("caf\u00e9 \u4e2d\u6587 \U0001f600", "caf\u00e9 \u4e2d\u6587 \U0001f600"),
    ],
)
def test_nothing_a_terminal_would_obey_is_shown(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


CONTROLS = st.text(
    alphabet=st.one_of(st.sampled_from("\x1b\x07\x9b\x9c\x9d[]P_\\;m0(\r\n"), st.characters()),
    max_size=60,
)


@given(CONTROLS)
def test_no_control_character_gets_through(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(c) != "Cc" or c in "\n\t" for c in shown)
    assert printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize("hostile", ["\x1b]" * 500_000, "\x1bP" * 500_000, "\x1b[" * 500_000])
@pytest.mark.timeout(10)
def test_a_megabyte_of_unfinished_sequences_is_read_once(hostile: str) -> None:
    assert "\x1b" not in printable(hostile)
