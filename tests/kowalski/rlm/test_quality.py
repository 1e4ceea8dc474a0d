from __future__ import annotations

import pytest

from kowalski.rlm.quality import Best, Judgement, better, judgement_of


@pytest.mark.parametrize(
    ("reply", "score", "words"),
    [
        ("0.8", 0.8, ""),
        ("0.4: too short", 0.4, "too short"),
        ("1", 1.0, ""),
        ("0", 0.0, ""),
        ("8/10", 0.8, ""),
        ("4 out of 5, the year is missing", 0.8, "the year is missing"),
        ("80%", 0.8, ""),
        ("0,75 - gut", 0.75, "gut"),
        ("**0.9** Good.", 0.9, "Good"),
        ("Score: 0.6\nIt names 3 of 5 causes.", 0.6, "It names 3 of 5 causes"),
        ("It names 3 of 4 causes. Score: 0.5", 0.5, "It names 3 of 4 causes"),
        ('{"score": 0.7, "why": "vague"}', 0.7, '{" "why": "vague"}'),
        ("Quality rating (0.3)", 0.3, "Quality )"),
    ],
)
def test_a_score_is_read_however_it_is_said(reply: str, score: float, words: str) -> None:
    assert judgement_of(reply) == Judgement(pytest.approx(score), words)


@pytest.mark.parametrize("reply", ["", "splendid", "7", "11/10", "3/0", "v0.8.1", "-0.5", "1e9"])
def test_what_is_no_score_is_none(reply: str) -> None:
    assert judgement_of(reply) is None


def test_words_are_one_line_of_bounded_length() -> None:
    judgement = judgement_of("0.5\n" + "too\nlong " * 1000)
    assert judgement is not None
    assert "\n" not in judgement.words
    assert len(judgement.words) == 500


def test_the_best_is_kept_and_judgements_without_gain_are_counted_in_a_row() -> None:
    best = better(None, "a", 0.4)
    assert best == Best("a", 0.4, 0)
    best = better(best, "b", 0.4)
    assert best == Best("a", 0.4, 1)
    best = better(best, "c", 0.3)
    assert best == Best("a", 0.4, 2)
    assert better(best, "d", 0.5) == Best("d", 0.5, 0)
