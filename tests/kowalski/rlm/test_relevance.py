from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kowalski.rlm.relevance import relevance


def best(question: str, *texts: str) -> str:
    terms = [set(re.findall(r"\w+", text)) for text in texts]
    scores = relevance(question, terms, [len(text) for text in texts])
    return texts[max(range(len(texts)), key=scores.__getitem__)]


FILLER = tuple(f"what is the reason that you need item {n} there" for n in range(9))


def test_one_rare_word_outweighs_several_that_are_half_as_rare() -> None:
    texts = [
        f"something else entirely {n}" if n % 4 else f"oil brake wheel pedal {n}" for n in range(40)
    ]
    rare = "carburettor and more x"
    assert best("oil brake wheel pedal or carburettor", *texts, texts[1], rare) == rare


def test_word_forms_meet() -> None:
    assert best("Where are tapes stored?", *FILLER, "storing a tape") == "storing a tape"


def test_the_parts_of_an_identifier_are_words() -> None:
    for name in ("ring_buffer", "ringBuffer", "RingBuffer", "HTTPRing_buffer2"):
        assert best("How large is the ring buffer?", *FILLER, name) == name
        assert best(f"Where is {name} set?", *FILLER, "the ring and the buffer") != FILLER[0]


def test_of_two_pieces_that_say_the_same_the_shorter_is_better() -> None:
    long = "the heron and " + " ".join(f"word{n}" for n in range(40))
    assert best("heron", long, *FILLER, "the heron") == "the heron"


def test_a_neighbour_of_an_answer_is_worth_more_than_a_stranger() -> None:
    scores = relevance("heron", [{"a"}, {"b"}, {"heron"}, {"c"}], [1, 1, 1, 1])
    assert scores[2] == 1
    assert scores[0] == 0 < scores[1] == scores[3] < 1


def test_a_question_about_nothing_here_prefers_nothing() -> None:
    assert relevance("zebra?", [{"a"}, {"b"}], [1, 1]) == [0, 0]
    assert relevance("", [{"a"}], [0]) == [0]


@given(st.text(max_size=30), st.lists(st.sets(st.text(min_size=1, max_size=8)), min_size=1))
def test_relevance_is_between_none_and_one(question: str, terms: list[set[str]]) -> None:
    scores = relevance(question, terms, [len(t) for t in terms])
    assert len(scores) == len(terms)
    assert all(0 <= score <= 1 for score in scores)
    assert max(scores) in {0, 1}
