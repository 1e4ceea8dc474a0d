"""Which folds are nearest to a question: by its words, and by vectors where a model gives them.

Texts are compared piece by piece, since a long text is near to nothing. A vector finds what says
the same in other words, words find the number and the identifier that a vector blurs. The two are
added, as in S. Bruch, S. Gai, A. Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval",
2023, where that is found better than fusing ranks; so it was here (docs/benchmarks.md, finding).
The same input gives the same order.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import fmean, pstdev
from typing import Final

from kowalski.protocol.messages.telemetry import Model
from kowalski.rlm.relevance import coverage, relevance
from kowalski.rlm.segmentation import segments
from kowalski.rlm.tokens import estimate_tokens

PIECE_CHARS: Final = 800
"""About 200 tokens: the smallest models that embed read 512, and cut off the rest in silence."""

PIECES_SHOWN_MAX: Final = 3
GAP: Final = "\n\u2026\n"
"""Between pieces of a passage that do not follow each other."""

_PREFIXES: Final = (
    ("nomic-embed", "search_query: ", "search_document: "),
    ("mxbai-embed", "Represent this sentence for searching relevant passages: ", ""),
    ("e5-", "query: ", "passage: "),
)
"""What is put before a question and before a text, as the cards of these models ask for."""

_VECTOR_WEIGHT = 0.15  # of one standard deviation; 0.1 to 0.2 found the same in the benchmark
_TERM = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Near:
    """One text: its number, how near from 0 to 1 (the nearest), and its best pieces in order."""

    number: int
    score: float
    passage: str


def embedding_model(models: Iterable[Model]) -> str | None:
    """Which of the models that the peers of a mesh have is asked for vectors; None: none can be.

    One made for it before one that chats as well; then the one that most peers have loaded.
    """
    loaded: Counter[str] = Counter()
    chats: set[str] = set()
    for model in models:
        can = model.capabilities
        if "embed" in can or (not can and "embed" in model.name.lower()):
            loaded[model.name] += 1 + 1000 * model.is_warm
            chats |= {model.name} if "chat" in can else set()
    return min(loaded, key=lambda name: (name in chats, -loaded[name], name), default=None)


def prefixes(model: str) -> tuple[str, str]:
    """What this model wants before a question, and before a text that may answer it."""
    name = model.lower()
    found = (words for sign, *words in _PREFIXES if sign in name)
    question, text = next(found, ("", ""))
    return question, text


def pieces_of(text: str) -> tuple[str, ...]:
    """The text in pieces of whole sentences and lines, a longer one cut; joined they are it."""
    pieces: list[str] = []
    start = end = 0
    for segment in segments(text, fence_chars_max=PIECE_CHARS):
        if segment.end - start > PIECE_CHARS and end > start:
            pieces.append(text[start:end])
            start = end
        end = segment.end
    pieces.append(text[start:])
    return tuple(
        piece[at : at + PIECE_CHARS] for piece in pieces for at in range(0, len(piece), PIECE_CHARS)
    )


def by_words(question: str, pieces: Sequence[str]) -> list[float]:
    """BM25 of each piece; the best gets the share of the question that it covers.

    So a question whose words hardly occur says little. 0 where none of them does.
    """
    if not pieces:
        return []
    terms = [set(_TERM.findall(piece)) for piece in pieces]
    share = coverage(question, terms)
    costs = list(map(estimate_tokens, pieces))
    return [share * one for one in relevance(question, terms, costs, neighbour=0.0)]


def by_vectors(question: bytes, pieces: Sequence[bytes | None]) -> list[float | None]:
    """The cosine of each piece with the question, 0 at least; None where there is no vector.

    Vectors are 32-bit floats, little-endian as on the wire.

    Raises:
        ValueError: they differ in length.
    """
    asked = _unit(question)
    near: list[float | None] = []
    for piece in pieces:
        if piece is None:
            near.append(None)
        elif len(piece) != len(question):
            raise ValueError(f"vectors of {len(question) // 4} and {len(piece) // 4} numbers")
        else:
            near.append(max(0.0, sum(map(mul, asked, _unit(piece)))))
    return near


def joined(words: Sequence[float], near: Sequence[float | None]) -> list[float]:
    """One score for each piece out of both; what has no vector is taken as near as the average."""
    known = [one for one in near if one is not None]
    if len(known) < 2 or not (spread := pstdev(known)):
        return list(words)
    usual = fmean(known)
    return [
        score + (0.0 if one is None else _VECTOR_WEIGHT * (one - usual) / spread)
        for score, one in zip(words, near, strict=True)
    ]


def nearest(
    texts: Sequence[Sequence[str]], scores: Sequence[float], *, count: int
) -> tuple[Near, ...]:
    """The `count` nearest of `texts`, each given in pieces.

    There is one score for every piece of all texts, in their order; 0 and less is no hit. A text is
    as near as its nearest piece; one that nothing hits is left out.
    """
    found: list[Near] = []
    at = 0
    for number, pieces in enumerate(texts):
        own = scores[at : at + len(pieces)]
        at += len(pieces)
        if (best := max(own, default=0.0)) > 0:
            found.append(Near(number, best, _passage(pieces, own)))
    found.sort(key=lambda one: (-one.score, one.number))
    top = found[0].score if found else 1.0
    return tuple(Near(one.number, one.score / top, one.passage) for one in found[:count])


def _passage(pieces: Sequence[str], scores: Sequence[float]) -> str:
    """The best pieces in their order, as far as they are about as near as the best."""
    order = sorted(range(len(pieces)), key=lambda number: (-scores[number], number))
    best = scores[order[0]]
    shown = sorted(number for number in order[:PIECES_SHOWN_MAX] if scores[number] >= best / 2)
    told = ""
    for number, before in zip(shown, [None, *shown], strict=False):
        gap = GAP if before is not None and number != before + 1 else ""
        told += gap + pieces[number]
    return told.strip()


def _unit(vector: bytes) -> Sequence[float]:
    numbers = array("f", vector)
    length = math.sqrt(sum(map(mul, numbers, numbers)))
    return [number / length for number in numbers] if length else numbers
