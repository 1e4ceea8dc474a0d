from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.rlm.segmentation import PIECE_CHARS_MAX, SEGMENTS_MAX, segments


def cut(text: str, *, fence_chars_max: int = 1000) -> list[tuple[str, str]]:
    found = segments(text, fence_chars_max=fence_chars_max)
    return [(segment.kind, text[segment.start : segment.end]) for segment in found]


def pieces(text: str) -> list[str]:
    return [piece for _, piece in cut(text)]


def test_wrapped_prose_is_cut_into_sentences_and_not_at_line_ends() -> None:
    text = (
        "The first sentence runs on, over the end of its line, to the\n"
        "middle of the second. The next begins there and ends with its line.\n"
        "A third one, e.g. this, has an abbreviation in it. And a fourth.\n"
    )
    assert pieces(text) == [
        "The first sentence runs on, over the end of its line, to the\nmiddle of the second. ",
        "The next begins there and ends with its line.\n",
        "A third one, e.g. this, has an abbreviation in it. ",
        "And a fourth.\n",
    ]


def test_sentences_of_chinese_end_without_a_space() -> None:
    first = "\u6211\u4eec\u660e\u5929\u53bb\u5317\u4eac\u3002"
    second = "\u8bf7\u5e26\u4e0a\u62a4\u7167\u3002\n"
    assert pieces(first + second) == [first, second]


def test_records_and_list_items_stand_alone() -> None:
    lines = [
        "2024-05-01 10:00:00 INFO started worker 1\n",
        "2024-05-01 10:00:01 INFO started worker 2\n",
        "May  1 10:00:02 host kernel: oops\n",
        "- first item\n",
        "- second item\n",
        "1. numbered\n",
        "| a | table |\n",
        "name: value\n",
    ]
    assert pieces("".join(lines)) == lines


def test_a_record_takes_the_line_that_continues_it() -> None:
    assert pieces("- an item that goes\n  on here\n- another\n") == [
        "- an item that goes\n  on here\n",
        "- another\n",
    ]


def test_a_fence_is_one_piece_if_it_is_small_enough() -> None:
    fence = "```python\nx = 1\n\ny = 2\n```\n"
    text = f"Before.\n\n{fence}\nAfter.\n"
    assert cut(text) == [("prose", "Before.\n\n"), ("fence", fence + "\n"), ("prose", "After.\n")]
    assert ("fence", fence + "\n") not in cut(text, fence_chars_max=10)


def test_a_fence_ends_only_at_marks_like_its_own() -> None:
    fence = "~~~~\n```\n~~~\n~~~~\n"
    assert cut(fence) == [("fence", fence)]


@pytest.mark.parametrize(
    "heading", ["# Title\n\n", "## Title\n", "Title\n=====\n", "Title\n-----\n\n"]
)
def test_headings_are_known(heading: str) -> None:
    assert cut(f"Text before.\n\n{heading}And text after it.\n")[1] == ("heading", heading)


def test_a_comment_above_code_is_no_heading() -> None:
    assert "heading" not in [kind for kind, _ in cut("x = 1\n\n# why\ny = 2\n")]


def test_the_last_line_of_a_traceback_is_a_piece_of_its_own() -> None:
    body = 'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    run()\n'
    assert cut(f"It went on for some time.\n{body}app.Oops: it broke. Twice.\nGone on.\n") == [
        ("prose", "It went on for some time.\n"),
        ("traceback", body),
        ("conclusion", "app.Oops: it broke. Twice.\n"),
        ("prose", "Gone on.\n"),
    ]


def test_an_exception_is_a_conclusion_without_a_traceback_too() -> None:
    assert cut("E   ValueError: no\n") == [("conclusion", "E   ValueError: no\n")]
    assert cut("  KeyError: 'x'\n")[0][0] == "conclusion"


def test_lines_that_differ_only_in_their_moment_are_repeats() -> None:
    first, again = "12:00:01 heartbeat ok\n", "12:00:02 heartbeat ok\n12:00:03 heartbeat ok\n"
    assert cut(f"12:00:00 starting up\n{first}{again}12:00:04 done\n") == [
        ("prose", "12:00:00 starting up\n"),
        ("prose", first),
        ("repeat", again),
        ("prose", "12:00:04 done\n"),
    ]


def test_lines_that_differ_in_a_number_are_no_repeats() -> None:
    assert "repeat" not in [
        kind for kind, _ in cut("12:00:01 got 17 items\n12:00:02 got 18 items\n")
    ]


def test_code_is_cut_where_the_indent_falls_back_or_after_six_lines() -> None:
    first = "def one():\n    a = 1\n    return a\n"
    second = "def two():\n    return 2\n"
    assert cut(first + second) == [("code", first), ("code", second)]
    assert max(piece.count("\n") for piece in pieces("x = 1\n" * 20)) == 6


def test_long_pieces_are_cut_between_words_if_they_have_any() -> None:
    words = "word " * 1000
    assert all(len(p) <= PIECE_CHARS_MAX and p.endswith(" ") for p in pieces(words))
    assert {len(p) for p in pieces("x" * 2000)} == {PIECE_CHARS_MAX}


def test_a_text_of_very_many_lines_has_a_bounded_number_of_pieces() -> None:
    text = "- a\n" * 100_000
    begin = time.process_time()
    found = segments(text, fence_chars_max=0)
    assert len(found) <= SEGMENTS_MAX
    assert "".join(text[s.start : s.end] for s in found) == text
    assert time.process_time() - begin < 5


LOOKS = (
    "```|~~~|> ```py|# h|===||  |Traceback (most recent call last):|  File x|ValueError: x|}|x = f("
    "|12:00:01 the same|12:00:02 the same|- item|One sentence. Another one here! And|\u3002|\x0c"
)
LINES = st.lists(st.one_of(st.sampled_from(LOOKS.split("|")), st.text(max_size=30)), max_size=30)


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([0, 40, 10_000]))
def test_the_pieces_of_any_text_are_the_text(lines: list[str], end: str, limit: int) -> None:
    text = end.join(lines)
    found = segments(text, fence_chars_max=limit)
    assert "".join(text[s.start : s.end] for s in found) == text
    assert all(s.start < s.end for s in found)
