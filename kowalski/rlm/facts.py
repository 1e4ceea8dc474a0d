"""The facts of a text that a summary must not lose or make up: numbers, identifiers and names.

Found by their look, in every language alike, for comparing two texts; what they say is not
understood. A number is the same number however its thousands are set apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_WORD = re.compile(r"[^\W_](?:[\w./@:#%+-]*[^\W_])?|_\w+")
_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f'](?=\d{3}(?!\d))")
_INNER_CAPITAL = re.compile(r"[^\W\d_][^\W\d_]*[a-z][A-Z]|[A-Z]{2,}[a-z]{2}")
_PARTS = re.compile(r"[./:@#+-]")
_SENTENCE_ENDS: Final = ".!?:\u2026\u3002\"'\u201c\u00ab(["

DIGITS_MIN: Final = 2
"""A single digit is in every text, and any summary may count to nine."""

NAME_CHARS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """Each by what it is compared by; `exact` are numbers and identifiers, the rest are names."""

    exact: frozenset[str]
    names: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.exact | self.names


def facts_of(text: str) -> Facts:
    """What `text` states that can be compared, a compound such as `192.168.0.7:8080` as one."""
    text = _THOUSANDS.sub("", text)
    exact: set[str] = set()
    names: set[str] = set()
    for match in _WORD.finditer(text):
        word = match.group()
        if word.islower() and word.isalpha():
            continue
        if _is_exact(word):
            exact.add(word.casefold())
        elif _is_name(text, match):
            names.add(word.casefold())
    return Facts(frozenset(exact), frozenset(names - exact))


def unfounded(summary: str, source: Facts) -> frozenset[str]:
    """Numbers and identifiers of `summary` that its source has not, not even as parts of others."""
    told = facts_of(summary).exact
    pieces = {piece for one in source.exact for piece in _pieces(one)}
    known = source.all | pieces
    return frozenset(
        one for one in told - known if not all(piece in known for piece in _pieces(one))
    )


def words_of(facts: Iterable[str]) -> frozenset[str]:
    """The words in them, without what joins them."""
    return frozenset(word for one in facts for word in re.findall(r"\w+", one))


def _pieces(word: str) -> list[str]:
    return [piece for piece in _PARTS.split(word.rstrip("%")) if len(piece) >= DIGITS_MIN] or [word]


def _is_exact(word: str) -> bool:
    digits = sum(character.isdigit() for character in word)
    if digits:
        return digits >= DIGITS_MIN or any(character.isalpha() for character in word)
    if "_" in word or "@" in word or "/" in word or _INNER_CAPITAL.search(word):
        return True
    return "." in word and all(len(part) > 1 for part in word.split("."))


def _is_name(text: str, match: re.Match[str]) -> bool:
    word = match.group()
    if len(word) < NAME_CHARS_MIN or not word[0].isupper():
        return False
    before = text[max(0, match.start() - 3) : match.start()].rstrip(" ")
    begins = not before or before[-1] in _SENTENCE_ENDS or before[-1] == "\n"
    return not begins or word.isupper()
