"""What all messages have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages import base
from kowalski.protocol.messages.inference import CompletionDelta
from kowalski.protocol.messages.repl import SubCall


@given(st.text(max_size=3000))
def test_words_for_a_person_always_become_a_line(text: str) -> None:
    cut = base.line(text)
    assert base.Failed(code="internal", detail=cut).detail == cut
    assert cut == text or (cut.endswith(" …") and text.startswith(cut[:-2]))


def test_a_line_is_cut_only_where_it_is_too_long() -> None:
    assert base.line("x" * 1024) == "x" * 1024
    assert base.line("x" * 1025) == "x" * 1022 + " …"


def test_messages_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        base.Refused(reason="busy").reason = "stale"  # type: ignore[misc]


def test_messages_with_the_same_contents_are_equal() -> None:
    assert base.Refused(reason="busy") == base.Refused(reason="busy")
    assert base.Refused(reason="busy") != base.Failed(code="busy")
    assert len({base.Refused(reason="busy"), base.Refused(reason="busy")}) == 1


@pytest.mark.parametrize("character", ["x", "é", "魚", "🐋", "\udc00"])
def test_any_text_can_be_cut_to_fit_and_to_no_less_than_fits(character: str) -> None:
    long = base.fitting(character * TEXT_BYTES_MAX)
    assert TEXT_BYTES_MAX - 4 < len(long.encode()) <= TEXT_BYTES_MAX
    assert SubCall(prompt=long).prompt == long


@given(st.text(max_size=20), st.integers(0, 90))
def test_what_is_cut_is_a_beginning(text: str, bytes_max: int) -> None:
    cut = base.fitting(text, bytes_max)
    assert text.startswith(cut)
    assert cut == text or len(cut.encode()) <= bytes_max < len(text.encode())


@pytest.mark.parametrize("word", ["Busy", "not member", "", "1st", "x" * 41, "busy\n", "größe"])
def test_a_code_is_a_short_word_for_machines(word: str) -> None:
    with pytest.raises(ValidationError):
        base.Refused(reason=word)


@pytest.mark.parametrize("character", ["x", "é", "魚", "🐋"])
def test_texts_are_bounded_by_their_bytes_on_the_wire(character: str) -> None:
    most = TEXT_BYTES_MAX // len(character.encode())
    assert SubCall(prompt=character * most)
    with pytest.raises(ValidationError, match="393216 bytes of UTF-8"):
        SubCall(prompt=character * (most + 1))


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("a\ud83d", "a\ufffd"),
        ("\ude00b", "\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("größe", "größe"),
        ("\ufeffx", "\ufeffx"),
        ("\ufeff\ud83d", "\ufeff\ufffd"),
        ("plain", "plain"),
    ],
)
def test_half_of_a_surrogate_pair_is_made_sayable(heard: str, said: str) -> None:
    assert base.sayable(heard) == said
    assert base.line(heard) == said
    delta = CompletionDelta(text=heard)
    assert delta.text == said
    assert decode(encode(delta)) == delta


@given(st.text(st.characters(categories=("Cs", "L", "N", "S"))))
def test_everything_can_be_said_and_what_could_be_is_left_alone(text: str) -> None:
    said = base.sayable(text)
    assert said.encode().decode() == said
    assert base.sayable(said) == said


def test_words_with_half_a_pair_do_not_pass_where_there_is_no_room_for_doubt() -> None:
    with pytest.raises(ValidationError):
        base.Failed(code="internal", detail="\ud83d")
