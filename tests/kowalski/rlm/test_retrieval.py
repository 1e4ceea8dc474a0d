"""Which texts are nearest to a question."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.protocol.messages.telemetry import Model
from kowalski.rlm.retrieval import (
    PIECE_CHARS,
    by_vectors,
    by_words,
    embedding_model,
    joined,
    nearest,
    pieces_of,
    prefixes,
)

FILLER = "The wind blows over the hill and nobody says a word about it at all. "


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def find(question: str, *texts: str, count: int = 3) -> list[int]:
    pieces = [pieces_of(text) for text in texts]
    words = by_words(question, [piece for each in pieces for piece in each])
    return [one.number for one in nearest(pieces, words, count=count)]


@given(st.text(max_size=5000))
def test_the_pieces_joined_are_the_text_and_none_is_too_long(text: str) -> None:
    pieces = pieces_of(text)
    assert "".join(pieces) == text
    assert all(len(piece) <= PIECE_CHARS for piece in pieces)


@pytest.mark.parametrize("seed", range(5))
def test_a_fact_is_found_among_many_texts_by_its_words(seed: int) -> None:
    draw = random.Random(seed)
    texts = [FILLER * draw.randrange(5, 60) for _ in range(12)]
    planted = draw.randrange(12)
    at = draw.randrange(len(texts[planted]) // len(FILLER)) * len(FILLER)
    fact = f"The valve of pump {draw.randrange(1000)} was replaced by Ada. "
    texts[planted] = texts[planted][:at] + fact + texts[planted][at:]
    assert find("who replaced the valves of the pump?", *texts)[0] == planted


def test_a_text_that_no_word_hits_is_left_out_and_so_are_all_beyond_the_count() -> None:
    assert set(find("valve", "a red bird", "the valve is shut", "valves and pumps")) == {1, 2}
    assert len(find("valve", "the valve is shut", "valves", count=1)) == 1
    assert find("nothing of that", "a red bird") == []
    assert find("anything") == []
    assert find("anything", "") == []


def test_the_passage_has_the_best_pieces_in_order_and_not_the_rest() -> None:
    text = FILLER * 30 + "The first valve is blue. " + FILLER * 30 + "The last valve is red."
    pieces = [pieces_of(text)]
    (near,) = nearest(pieces, by_words("valve", pieces[0]), count=3)
    assert near.score == 1.0
    assert near.passage.index("first valve is blue") < near.passage.index("last valve is red")
    assert len(near.passage) < len(text) / 2


def test_vectors_find_what_says_the_same_in_other_words() -> None:
    texts = [("a red bird",), ("the device that leads",), ("the valve",)]
    near = by_vectors(vector(1, 0.1), [vector(0, 1), vector(2, 0), vector(-1, 0)])
    assert near == pytest.approx([0.0995, 0.995, 0.0], abs=1e-3)
    words = by_words("who is in charge?", [text for (text,) in texts])
    assert [one.number for one in nearest(texts, joined(words, near), count=3)] == [1]


def test_an_identifier_that_vectors_blur_is_found_by_its_word() -> None:
    texts = [("job 4711 failed",), ("job 4712 failed",), ("all is well",)]
    words = by_words("4712", [text for (text,) in texts])
    blurred = by_vectors(vector(1, 0), [vector(1, 0.1), vector(1, 0.1), vector(0, 1)])
    assert nearest(texts, joined(words, blurred), count=1)[0].number == 1


def test_the_model_for_vectors_is_one_made_for_it_and_loaded_on_most_peers() -> None:
    chat = Model(name="a-chat", capabilities=("chat", "embed"), is_warm=True)
    cold = Model(name="b-embed", capabilities=("embed",))
    warm = Model(name="c-embed", capabilities=("embed",), is_warm=True)
    untold = Model(name="text-embedding-x")
    assert embedding_model([]) is None
    assert embedding_model([Model(name="m"), Model(name="n", capabilities=("chat",))]) is None
    assert embedding_model([Model(name="m"), untold]) == "text-embedding-x"
    assert embedding_model([chat]) == "a-chat"
    assert embedding_model([chat, cold]) == "b-embed"
    assert embedding_model([chat, cold, cold, cold, warm]) == "c-embed"


def test_what_a_model_wants_before_a_question_is_known_of_some() -> None:
    assert prefixes("nomic-embed-text:latest") == ("search_query: ", "search_document: ")
    assert prefixes("tiny") == ("", "")


def test_a_piece_without_a_vector_is_as_near_as_its_words_say() -> None:
    texts = [("the key of the desk",), ("the weather",), ("a red bird",)]
    words = by_words("the key of the desk?", [text for (text,) in texts])
    assert [one.number for one in nearest(texts, joined(words, [None, 0.9, 0.1]), count=2)] == [
        0,
        1,
    ]


def test_a_question_of_which_little_is_found_says_little_and_one_that_is_found_says_much() -> None:
    pieces = ["the valve of the pump is shut", "a red bird", "the wind"]
    assert max(by_words("is the valve of the pump shut?", pieces)) == pytest.approx(1.0)
    assert 0 < max(by_words("why does the neighbour sing?", pieces)) < 0.3
    assert by_words("nobody sings", pieces) == [0.0, 0.0, 0.0]


def test_vectors_that_say_nothing_change_nothing() -> None:
    assert joined([0.5, 0.0], [None, None]) == [0.5, 0.0]
    assert joined([0.5, 0.0], [0.3, 0.3]) == [0.5, 0.0]
    assert joined([], []) == []


def test_texts_that_are_equally_near_stay_in_their_order() -> None:
    assert find("valve", "the valve", "the valve", "the valve") == [0, 1, 2]


def test_vectors_of_nothing_and_missing_ones_are_near_to_nothing() -> None:
    assert by_vectors(vector(0, 0), [vector(1, 0), None]) == [0.0, None]
    with pytest.raises(ValueError, match="vectors of 2 and 3 numbers"):
        by_vectors(vector(1, 0), [vector(1, 0, 0)])


@given(
    st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=4), max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_same_input_gives_the_same_order_and_scores_fall(
    texts: list[list[str]], draw: random.Random
) -> None:
    scores = [draw.choice([0.0, 0.3, 0.7]) for pieces in texts for _ in pieces]
    both = joined(scores, scores[::-1])
    found = nearest(texts, both, count=9)
    assert found == nearest(texts, joined(scores, scores[::-1]), count=9)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({one.number for one in found}) == len(found)
