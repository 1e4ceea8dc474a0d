"""Shortens a text to a token budget without a model, keeping what is rare and specific.

Extractive and deterministic: what is kept is kept word for word and in order, and a mark stands
where something is missing. The choice is a greedy maximisation of a concave coverage of terms (Lin
and Bilmes, "A Class of Submodular Functions for Document Summarization", ACL 2011), with lazy
evaluation (Minoux, 1978); a known question adds BM25. Who keeps the original is decided elsewhere.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kowalski.protocol.ids import ContentHash, content_hash
from kowalski.rlm.relevance import relevance
from kowalski.rlm.segmentation import segments
from kowalski.rlm.tokens import centitokens, estimate_tokens

ALGORITHM: Final = "density-coverage/1"

MARK: Final = "\u2026"
"""Stands for text left out; a line feed follows if that text ended a line, else a space."""

TIMES: Final = "\u00d7"
"""With 3 after it, at the end of a line: the line came three times in a row, but for its moment."""

_MARK_COST = centitokens(MARK + "\n")

# Tuned on planted facts in Python's documentation and in source with logs. All are flat optima.
_COVERAGE = 0.4  # what a term is still worth after it was kept once
_COST_POWER = 0.6  # below 1: a long sentence is not punished for its length ...
_COST_BASE = 200  # ... nor a fragment of two words rewarded (hundredths of a token)
_COST_LINEAR = 6000  # ... but beyond this a piece pays in full
_TEMPLATE_FREE = 3  # so many lines alike but for their numbers count in full
_AGAIN = 0.5  # what each further line of a template counts, compared with the one before
_SAID = 0.1  # what a term is worth that the reader was told already ...
_STRESS = 2.0  # ... and what one that is stressed
_LAZINESS = 0.9  # a candidate this close to the next best is taken without looking further
_QUESTION_BASE = 0.2  # how much the general score counts beside a question's ...
_QUESTION_WEIGHT = 2.0  # ... each scaled to 1 at its best

_EDGE_SHARE = 0.25  # of the budget, at most, for the first and the last piece
_CONCLUSION_SHARE = 0.1
_HEADING_SHARE = 0.1
_FENCE_SHARE = 0.1

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_ASCII_TERM = re.compile(r"\w+", re.ASCII)
_TERM = re.compile(rf"[^\W{_CJK}]+|[{_CJK}]{{1,2}}")
_UNDERLINES = "=-~^"


@dataclass(frozen=True, slots=True)
class Folded:
    text: str
    source_tokens: int
    tokens: int
    """Of `text`, marks included; both counts are estimates of `kowalski.rlm.tokens`."""
    ratio: float
    """`tokens` / `source_tokens`; 1 for a text that was not folded."""
    algorithm: str
    source_hash: ContentHash
    """Of the source in UTF-8 (surrogates passed through), for who stored it."""
    kept_segments: int
    source_segments: int


def fold(
    text: str,
    *,
    budget_tokens: int,
    question: str | None = None,
    said: str = "",
    stressed: Collection[str] = (),
) -> Folded:
    """At most `budget_tokens` of `text`, by estimate and with the marks; all of it if it fits.

    With a `question`, what may answer it comes first. What the reader has been told already
    (`said`) counts less, and `stressed` words, in lower case, more. The result is empty if not even
    a mark fits.
    """
    source_tokens = estimate_tokens(text)
    source_hash = content_hash(text.encode("utf-8", "surrogatepass"))
    if source_tokens <= max(0, budget_tokens):
        return Folded(text, source_tokens, source_tokens, 1.0, ALGORITHM, source_hash, 1, 1)
    units = _units(text, fence_chars_max=int(budget_tokens * 4 * _FENCE_SHARE))
    folded = ""
    kept = bytearray(len(units))
    if budget_tokens * 100 >= _MARK_COST:
        corpus = _Corpus.of(units, question, said, stressed)
        _Choice(corpus, budget_tokens * 100, kept).run()
        folded = _rendered(units, kept)
    tokens = estimate_tokens(folded)
    ratio = tokens / source_tokens
    return Folded(
        folded, source_tokens, tokens, ratio, ALGORITHM, source_hash, sum(kept), len(units)
    )


class _Unit(NamedTuple):
    body: str
    kind: str
    times: int


def _units(text: str, fence_chars_max: int) -> list[_Unit]:
    units: list[_Unit] = []
    for start, end, kind in segments(text, fence_chars_max=fence_chars_max):
        body = text[start:end]
        if kind == "repeat" and units:
            said = units[-1]
            lines = sum(not line.isspace() for line in body.splitlines())
            units[-1] = _Unit(said.body, said.kind, said.times + lines)
        else:
            units.append(_Unit(body, kind, 1))
    return units


def _suffix(unit: _Unit) -> str:
    return f" {TIMES}{unit.times}" if unit.times > 1 else ""


def _rendered(units: list[_Unit], kept: bytearray) -> str:
    parts: list[str] = []
    last = len(units) - 1
    for at, unit in enumerate(units):
        if kept[at] and unit.times > 1:
            words = unit.body.rstrip()
            parts += (words, _suffix(unit), unit.body[len(words) :])
        elif kept[at]:
            parts.append(unit.body)
        elif at == last or kept[at + 1]:
            parts.append(MARK + ("\n" if unit.body.endswith("\n") else " "))
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Corpus:
    """What is known of every unit before any is chosen; lists run parallel to `units`."""

    units: list[_Unit]
    terms: list[set[str]]
    costs: list[int]
    """In hundredths of a token, marks not included."""
    templates: list[frozenset[str]]
    """The words without those that hold a digit: the same for lines of one kind in a log."""
    worth: dict[str, int]
    """Of each term, if nothing is kept yet. Whole numbers, because sets have no order and the sum
    of floats depends on it."""
    scale: list[float]
    """What the sum of a unit's terms is multiplied by, for its price and its novelty."""
    relevance: list[float]
    """0 to 1, to the question, for its novelty; all 0 without one."""

    @staticmethod
    def of(
        units: list[_Unit], question: str | None, said: str, stressed: Collection[str]
    ) -> _Corpus:
        find = (_ASCII_TERM if all(unit.body.isascii() for unit in units) else _TERM).findall
        terms = [set(find(unit.body)) for unit in units]
        costs = [
            centitokens(unit.body) + (centitokens(_suffix(unit)) if unit.times > 1 else 0)
            for unit in units
        ]
        frequency: Counter[str] = Counter()
        for in_unit in terms:
            frequency.update(in_unit)
        constant = {term: term if term.isalpha() else "" for term in frequency}
        templates = [frozenset(map(constant.__getitem__, in_unit)) for in_unit in terms]
        worth = _worth(frequency)
        for term in stressed and [one for one in worth if one.lower() in stressed]:
            worth[term] = int(worth[term] * _STRESS)
        for term in worth.keys() & set(find(said)):
            worth[term] = int(worth[term] * _SAID)
        novelty = _novelty(templates, [sum(map(worth.__getitem__, found)) for found in terms])
        scale = [new / _price(cost) for new, cost in zip(novelty, costs, strict=True)]
        relevant = [0.0] * len(units)
        if question:
            relevant = relevance(question, terms, costs)
            again = _again(templates, relevant)
            relevant = [asked * new for asked, new in zip(relevant, again, strict=True)]
        return _Corpus(units, terms, costs, templates, worth, scale, relevant)


def _novelty(templates: list[frozenset[str]], gains: list[int]) -> list[float]:
    """Below 1 for lines of a common template, the less the more lines of it are better.

    Known from the start, and not as lines are kept: else each choice would change thousands.
    """
    alike = Counter(templates)
    return [
        again * min(1.0, _TEMPLATE_FREE / alike[template])
        for again, template in zip(_again(templates, gains), templates, strict=True)
    ]


def _again(templates: list[frozenset[str]], gains: Sequence[float]) -> list[float]:
    """1 for the best line of each template, and for each further one a part of that before it."""
    before: Counter[frozenset[str]] = Counter()
    again = [1.0] * len(templates)
    for at in sorted(range(len(gains)), key=gains.__getitem__, reverse=True):
        again[at] = math.pow(_AGAIN, before[templates[at]])
        before[templates[at]] += 1
    return again


def _price(cost: int) -> float:
    power = math.pow(cost + _COST_BASE, _COST_POWER)
    return power * math.pow(max(1.0, cost / _COST_LINEAR), 1 - _COST_POWER)


def _worth(frequency: Counter[str]) -> dict[str, int]:
    """The rarer the better, whatever its case; names, numbers and identifiers a little more."""
    caseless: Counter[str] = Counter()
    for term, count in frequency.items():
        caseless[term.lower()] += count
    return {term: int(_shape(term) / math.sqrt(caseless[term.lower()])) for term in frequency}


def _shape(term: str) -> float:
    if len(term) > 32:  # a hash, a key, a blob
        return 0.5e6
    if term.isdigit():
        return 1e6 if len(term) > 2 else 0.4e6
    if len(term) == 1:
        return 0.1e6 if term.isascii() else 0.5e6
    return 1e6 if term.islower() and term.isalpha() else 1.15e6


class _Choice:
    """Marks in `kept` what fits into `budget`, all costs in hundredths of a token.

    What it has spent is always the price of everything kept and of one mark for every gap.
    """

    def __init__(self, corpus: _Corpus, budget: int, kept: bytearray) -> None:
        self._corpus = corpus
        self._budget = budget
        self._kept = kept
        self._spent = _MARK_COST
        self._worth = dict(corpus.worth)

    def run(self) -> None:
        self._pin_edges()
        self._pin_conclusions()
        self._pin_headings()
        self._take_the_best()

    def _cost(self, at: int) -> int:
        """Of this unit, and of the marks it adds or makes needless."""
        gaps = (at > 0 and not self._kept[at - 1]) - 1
        gaps += at + 1 < len(self._kept) and not self._kept[at + 1]
        return self._corpus.costs[at] + gaps * _MARK_COST

    def _keep(self, at: int) -> None:
        self._spent += self._cost(at)
        self._kept[at] = True
        for term in self._corpus.terms[at]:
            self._worth[term] = int(self._worth[term] * _COVERAGE)

    def _pin(self, candidates: Iterable[int], share: float) -> None:
        room = int(self._budget * share)
        for at in candidates:
            cost = self._cost(at)
            if not self._kept[at] and cost <= room and self._spent + cost <= self._budget:
                room -= cost
                self._keep(at)

    def _pin_edges(self) -> None:
        self._pin((0, len(self._kept) - 1), _EDGE_SHARE)

    def _pin_conclusions(self) -> None:
        """The last lines of tracebacks, the latest first, and each kind of them once."""
        latest: dict[frozenset[str], int] = {}
        for at, unit in enumerate(self._corpus.units):
            if unit.kind == "conclusion":
                latest[self._corpus.templates[at]] = at
        self._pin(sorted(latest.values(), reverse=True), _CONCLUSION_SHARE)

    def _pin_headings(self) -> None:
        """Every heading of the highest levels, for as many levels as are affordable."""
        levels: dict[int, list[int]] = {}
        for at, unit in enumerate(self._corpus.units):
            if unit.kind == "heading":
                levels.setdefault(_level(unit.body), []).append(at)
        room = int(self._budget * _HEADING_SHARE)
        for level in sorted(levels):
            room -= sum(self._corpus.costs[at] + _MARK_COST for at in levels[level])
            if room < 0:
                break
            self._pin(levels[level], _HEADING_SHARE)

    def _take_the_best(self) -> None:
        """What gains most by its price, until nothing fits.

        Gains only fall as more is kept, so a candidate is looked at anew only when it is on top;
        one look costs it a tenth of its gain or makes it the choice, which bounds the looks.
        """
        first = [self._gain(at) for at in range(len(self._kept))]
        best = max(first)
        relevance_of = self._corpus.relevance
        is_asked = any(relevance_of)
        weight = _QUESTION_WEIGHT * best / _QUESTION_BASE if is_asked else 0.0

        heap = [
            (-gain - weight * relevance_of[at], at)
            for at, gain in enumerate(first)
            if not self._kept[at]
        ]
        heapq.heapify(heap)
        cheapest = min(self._corpus.costs) - _MARK_COST
        while heap and self._spent + cheapest <= self._budget:
            stale, at = heap[0]
            if self._spent + self._cost(at) > self._budget:
                heapq.heappop(heap)
                continue
            gain = self._gain(at) + weight * relevance_of[at]
            if gain >= -stale * _LAZINESS:
                heapq.heappop(heap)
                self._keep(at)
            else:
                heapq.heapreplace(heap, (-gain, at))

    def _gain(self, at: int) -> float:
        terms = self._corpus.terms[at]
        return sum(map(self._worth.__getitem__, terms)) * self._corpus.scale[at]


def _level(heading: str) -> int:
    bare = heading.strip()
    marks = len(bare) - len(bare.lstrip("#"))
    return marks or 1 + _UNDERLINES.find(bare[-1]) % 6
