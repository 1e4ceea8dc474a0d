"""What a model that judges an answer has said: a score from 0 to 1, and why.

The best so far is kept, so that a session that ends by patience or by its turns ends with the
answer that was judged best, not with its last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

WORDS_CHARS_MAX: Final = 500

_NUMBER = r"(\d+(?:[.,]\d+)?)"
_OF = r"\s*(?:(/|of|out of)\s*(\d+)|(%))?"
_SCORE = re.compile(rf"\b(?:score|rating|quality)\b\W{{0,12}}{_NUMBER}{_OF}", re.IGNORECASE)
_ALONE = re.compile(rf"(?<![\w.,-]){_NUMBER}{_OF}(?![\w])", re.IGNORECASE)
_AROUND = " \t\r\n:;.,-*_`"


@dataclass(frozen=True, slots=True)
class Judgement:
    score: float
    words: str
    """What was said besides the score, in one line."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best answer so far, and how many judgements in a row brought nothing better."""

    answer: str
    score: float
    flat: int = 0


def judgement_of(reply: str) -> Judgement | None:
    """The score in a reply; None if there is none.

    `0.8`, `8/10`, `4 out of 5` and `80%` are scores; after the word `score` wherever it stands,
    else at the first place where one stands. A bare number above 1 is none: nobody knows of what.
    """
    for found in (*_SCORE.finditer(reply), *_ALONE.finditer(reply)):
        score = _score(found)
        if score is not None:
            words = f"{reply[: found.start()].strip(_AROUND)} {reply[found.end() :].strip(_AROUND)}"
            return Judgement(score, " ".join(words.split())[:WORDS_CHARS_MAX])
    return None


def _score(found: re.Match[str]) -> float | None:
    value = float(found[1].replace(",", "."))
    whole = float(found[3]) if found[3] else 100.0 if found[4] else 1.0
    if whole <= 0 or value > whole:
        return None
    return value / whole


def better(best: Best | None, answer: str, score: float) -> Best:
    """The best after one more judgement."""
    if best is None or score > best.score:
        return Best(answer, score)
    return Best(best.answer, best.score, best.flat + 1)
