"""How well each piece of a text may answer a question: BM25 over sets of terms.

S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009. A piece
is a sentence or a few lines, so how often a term occurs in it says nothing, and counts as once.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

_SATURATION: Final = 1.2  # k1 and b as in the literature
_LENGTH: Final = 0.75
NEIGHBOUR: Final = 0.25
"""What stands beside an answer often belongs to it: this share of its score."""

# `ring_buffer`, `ringBuffer`, `HTTPServer2`: the words a question would use.
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+")
_QUESTION_TERM = re.compile(r"\w+")
_SUFFIXES = ("ingly", "edly", "ing", "ed", "es", "s", "ly", "e")
_STEM_CHARS_MIN = 3


def relevance(
    question: str,
    terms: Sequence[set[str]],
    costs: Sequence[int],
    *,
    neighbour: float = NEIGHBOUR,
) -> list[float]:
    """0 to 1 for each piece, 1 for the best; all 0 if no word of `question` occurs anywhere.

    `terms` are the words of each piece as written, `costs` their lengths in any unit. A piece gets
    the share `neighbour` of the score of those beside it.
    """
    hits, rarity = _hits(question, terms)
    mean_cost = sum(costs) / len(costs) or 1.0
    scores = [
        sum(sorted(rarity[stem] for stem in stems))
        * (_SATURATION + 1)
        / (1 + _SATURATION * (1 - _LENGTH + _LENGTH * cost / mean_cost))
        for stems, cost in zip(hits, costs, strict=True)
    ]
    around = zip([0.0, *scores[:-1]], [*scores[1:], 0.0], strict=True)
    spread = [
        score + neighbour * (before + after)
        for score, (before, after) in zip(scores, around, strict=True)
    ]
    best = max(spread)
    return [score / best for score in spread] if best else spread


def coverage(question: str, terms: Sequence[set[str]]) -> float:
    """How much of a question the piece that has most of it covers, from 0 to 1.

    By the weight of its words; one that occurs nowhere weighs as much as the rarest.
    """
    hits, rarity = _hits(question, terms)
    missing = _asked(question) - rarity.keys()
    whole = sum(sorted(rarity.values())) + len(missing) * _rarity(len(terms), 0)
    if not whole:
        return 0.0
    return max(sum(sorted(rarity[stem] for stem in stems)) for stems in hits) / whole


def _hits(question: str, terms: Sequence[set[str]]) -> tuple[list[set[str]], dict[str, float]]:
    """Which stems of the question each piece has, and what each of those found weighs."""
    asked = _asked(question)
    vocabulary: set[str] = set().union(*terms)
    stems_of = {term: hit for term in vocabulary if (hit := asked & _stems(term))}
    hits = [
        set().union(*(stems_of[term] for term in found)) if found else set()
        for found in (in_piece & stems_of.keys() for in_piece in terms)
    ]
    frequency = Counter(stem for stems in hits for stem in stems)
    return hits, {stem: _rarity(len(terms), count) for stem, count in frequency.items()}


def _rarity(pieces: int, count: int) -> float:
    # Squared, unlike BM25: one rare word of a question then outweighs all its `which` and `does`,
    # in every language, and no list of stop words is needed.
    return math.log(1 + (pieces - count + 0.5) / (count + 0.5)) ** 2


def _asked(question: str) -> set[str]:
    return {stem for term in _QUESTION_TERM.findall(question) for stem in _stems(term)}


def _stems(term: str) -> set[str]:
    parts = _PART.findall(term)
    return {_stem(part) for part in (parts if len(parts) < 2 else [*parts, term])}


def _stem(word: str) -> str:
    """Not linguistics: only so that `stored`, `stores` and `storing` meet."""
    word = word.lower()
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _STEM_CHARS_MIN:
            word = word.removesuffix(suffix)
            break
    return word.removesuffix("e") if len(word) > _STEM_CHARS_MIN else word
