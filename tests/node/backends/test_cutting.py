"""Texts that end an answer, however it is cut into pieces; what was said already, said once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends.cutting import EchoCutter, StopCutter
from kowalski.node.backends.seam import BackendError

letters = st.text("ab\n", max_size=12)


def pieces_of(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]


def stopped(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    cutter = StopCutter(stops)
    said = "".join(map(cutter.feed, pieces))
    return said + ("" if cutter.has_stopped else cutter.finish()), cutter.has_stopped


@given(letters, st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3), st.data())
def test_an_answer_ends_before_the_first_stop_wherever_it_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(0, 4), max_size=6))
    # Letter by letter, as it is written: the first letter that completes a stop ends it.
    written = [text[:end] for end in range(len(text) + 1)]
    ended = next((so_far for so_far in written if so_far.endswith(tuple(stops))), None)
    longest = max((len(stop) for stop in stops if (ended or "").endswith(stop)), default=0)
    expected = text if ended is None else ended[: len(ended) - longest]
    assert stopped(stops, pieces_of(text, sizes)) == (expected, ended is not None)


def test_only_what_may_become_a_stop_is_held_back() -> None:
    cutter = StopCutter(["END"])
    assert [cutter.feed(piece) for piece in ("a", "E", "N", "X", "EN")] == ["a", "", "", "ENX", ""]
    assert cutter.finish() == "EN"


def test_nothing_is_said_after_a_stop() -> None:
    cutter = StopCutter(["."])
    assert (cutter.feed("a.b"), cutter.has_stopped, cutter.feed("c")) == ("a", True, "")


@given(letters, letters, st.data())
def test_a_beginning_that_is_said_again_is_taken_off(
    so_far: str, rest: str, data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(0, 4), max_size=6))
    cutter = EchoCutter(so_far)
    said = "".join(map(cutter.feed, pieces_of(so_far + rest, sizes))) + cutter.finish()
    assert said == rest


@given(letters, st.data())
def test_what_only_goes_on_is_given_whole(rest: str, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 4), max_size=6))
    cutter = EchoCutter("The whale is ")
    said = "".join(map(cutter.feed, pieces_of(rest, sizes))) + cutter.finish()
    assert said == rest


def test_a_short_end_that_begins_like_the_whole_is_not_lost() -> None:
    cutter = EchoCutter("The whale is large. ")
    assert (cutter.feed("The"), cutter.feed(" whale"), cutter.finish()) == ("", "", "The whale")


def test_an_answer_that_begins_anew_and_differs_is_found_out() -> None:
    cutter = EchoCutter("The whale is large, and it")
    with pytest.raises(BackendError, match="anew"):
        cutter.feed("The whale is a mammal")
