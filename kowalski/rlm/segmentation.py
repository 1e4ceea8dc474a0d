"""Cuts a text into the pieces that a fold keeps or drops: sentences, log lines, bits of code.

The pieces, joined, are the text again. What a line is (prose, code, a record of a log) is guessed
from its look; a wrong guess makes pieces larger or smaller than they could be, and nothing worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, NamedTuple

SEGMENTS_MAX: Final = 20_000
"""Past this many, neighbours are joined: scoring stays bounded on a text of very short lines."""

PIECE_CHARS_MAX: Final = 500
"""Longer sentences and lines are cut, between words if they have any."""

_SENTENCE_CHARS_MIN = 16  # what ends in a point sooner is more likely an abbreviation
_LATIN_LAST = "\u2fff"
_CODE_LINES_MAX = 6
_CODE_LINES_MIN = 3  # before a dedent may end a piece
_REPEAT_CHARS_MIN = 8  # so that closing brackets stay code

_FENCE = re.compile(r"[ \t]*(?:>[ \t]?)*(`{3,}|~{3,})")
_UNDERLINE = re.compile(r"[ \t]*([=\-~^*\"])\1{2,}\s*$")
_TRACEBACK = re.compile(r"[ \t]*Traceback \(most recent call last\):")
_CONCLUSION = re.compile(
    r"(?:E  )?[ \t]*(?:[\w.]*(?:Error|Exception)|KeyboardInterrupt)\b(?:: |\s*$)"
)
_CODE_ENDS = frozenset(";{}([\\")
_STATEMENT = re.compile(
    r"[ \t]*(?:(?:(?:async )?def|class|import|from|return|if|elif|else|for|while|with|try|except"
    r"|const|let|var|func|fn|public|private|static|#include|#define)\b.*[:=(]\s*\S*$|@\w|//|/\*)"
)
_OPERATOR = re.compile(r" [=!+<>-]?= |[-=]>|\w\(\w*\)$")
_FIELDS_MIN = 2
_NUMBERED = re.compile(r"([^\W\d_]{2,20}[ _#-]{0,2})\d")
# What begins a line that stands alone: list marks, table bars, moments, levels, keys.
_RECORD = re.compile(
    r"[ \t]*(?:[-*+\u2022|][ \t]|\d{1,3}[.)][ \t]|[\[(<]?\d{2,4}[-/:.]\d\d|[A-Z][a-z]{2} [ \d]\d "
    r"|[\[{\"<]|[A-Z]{4,}[: ]|[\w.-]{1,30}[:=])"
)
_SENTENCE_END = re.compile(
    r"[.!?\u2026][)\]\"'\u201d\u2019*_`]*\s+(?=[^\s\w]*[A-Z0-9\u00c0-\u00de\u0391-\u042f])"
    r"|[\u3002\uff01\uff1f]\s*"
)
# The moment at the beginning of a log line: two lines that differ in nothing else say the same.
_MOMENT = re.compile(
    r"[ \t]*[\[(]?(?:\d{4}[-/.]\d\d[-/.]\d\d[T ]?|[A-Z][a-z]{2} [ \d]\d )?(?:\d\d:\d\d(?::\d\d)?)?"
    r"(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?[\])]?\s*"
)


class Segment(NamedTuple):
    start: int
    end: int
    kind: str
    """`prose`, `code`, `fence`, `heading`, `traceback`, `conclusion` (its last line) or `repeat`.

    A `repeat` says nothing that the segment before it has not said, but for the time of day.
    """


class _Block(NamedTuple):
    end: int
    kind: str


def segments(text: str, *, fence_chars_max: int) -> list[Segment]:
    """All of `text` in order; a fenced block of at most `fence_chars_max` is one piece."""
    lines = text.splitlines(keepends=True)
    offsets = [0, *accumulate(map(len, lines))]
    pieces: list[Segment] = []
    at, block = 0, _Block(0, "prose")
    while at < len(lines):
        first = _past_blank(lines, at)
        if first < len(lines):
            block = _block(lines, first, block.kind, fence_chars_max)
            first = _past_blank(lines, block.end)
        pieces += _pieces(text, offsets[at], offsets[first], block.kind)
        at = first
    if len(pieces) <= SEGMENTS_MAX:
        return pieces
    size = -(-len(pieces) // SEGMENTS_MAX)
    groups = (pieces[first : first + size] for first in range(0, len(pieces), size))
    return [Segment(group[0].start, group[-1].end, "prose") for group in groups]


def _past_blank(lines: list[str], at: int) -> int:
    while at < len(lines) and lines[at].isspace():
        at += 1
    return at


def _block(lines: list[str], at: int, previous: str, fence_chars_max: int) -> _Block:
    """What begins at the line `at`, which is not blank; `previous` is the kind before it."""
    line = lines[at]
    bare = line.lstrip()
    if bare[0] in "`~>" and (fence := _FENCE.match(line)):
        return _fence(lines, at, fence[1], fence_chars_max)
    if bare[0] == "T" and _TRACEBACK.match(line):
        return _Block(_deeper(lines, at), "traceback")
    is_first = at == 0 or lines[at - 1].isspace()
    if _CONCLUSION.match(line) or (previous == "traceback" and not is_first):
        return _Block(at + 1, "conclusion")
    if is_first and (heading_end := _heading_end(lines, at)):
        return _Block(heading_end, "heading")
    if not is_first and _is_said_again(lines[at - 1], line):
        return _Block(_last_said(lines, at), "repeat")
    return _code(lines, at) if _is_code(line) else _prose(lines, at)


def _heading_end(lines: list[str], at: int) -> int:
    """0 if no heading begins here. One `#` above text is taken for a comment."""
    bare = lines[at].lstrip()
    following = lines[at + 1] if at + 1 < len(lines) else "\n"
    if bare[0] == "#" and (bare[1:2] == "#" or following.isspace()):
        return at + 1
    return at + 2 if len(bare) < 100 and _UNDERLINE.match(following) else 0


def _is_code(line: str) -> bool:
    line = line.rstrip()
    return line[-1] in _CODE_ENDS or bool(_OPERATOR.search(line)) or bool(_STATEMENT.match(line))


def _fence(lines: list[str], at: int, marks: str, fence_chars_max: int) -> _Block:
    chars = len(lines[at])
    for end in range(at + 1, len(lines)):
        chars += len(lines[end])
        if chars > fence_chars_max:
            break
        closing = lines[end].lstrip("> \t").rstrip()
        if closing.startswith(marks) and not closing.strip(marks[0]):
            return _Block(end + 1, "fence")
    return _Block(at + 1, "code")


def _deeper(lines: list[str], at: int) -> int:
    margin = _indent(lines[at])
    end = at + 1
    while end < len(lines) and _indent(lines[end]) > margin and not lines[end].isspace():
        end += 1
    return end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_said_again(line: str, following: str) -> bool:
    # The ends are compared first because they nearly always differ, and that is cheap.
    if line[-_REPEAT_CHARS_MIN:] != following[-_REPEAT_CHARS_MIN:]:
        return False
    said = _after_moment(line)
    return len(said) >= _REPEAT_CHARS_MIN and said == _after_moment(following)


def _after_moment(line: str) -> str:
    moment = _MOMENT.match(line)
    return line[moment.end() :] if moment else line


def _last_said(lines: list[str], at: int) -> int:
    end = at + 1
    while end < len(lines) and _is_said_again(lines[end - 1], lines[end]):
        end += 1
    return end


def _code(lines: list[str], at: int) -> _Block:
    """Up to six lines, or to where the indent falls back."""
    end = at + 1
    chars = len(lines[at])
    while end < len(lines) and end - at < _CODE_LINES_MAX:
        line = lines[end]
        chars += len(line)
        is_deeper = _indent(line) > _indent(lines[at])
        if line.isspace() or chars > PIECE_CHARS_MAX or not (is_deeper or _is_code(line)):
            break
        if end - at >= _CODE_LINES_MIN and _indent(line) < _indent(lines[end - 1]):
            break
        end += 1
    return _Block(end, "code")


def _prose(lines: list[str], at: int) -> _Block:
    """A line and those that continue it: a paragraph, or a record of a log or list."""
    widest = len(lines[at])
    end = at + 1
    while end < len(lines) and _continues(lines[end - 1], lines[end], widest):
        after = lines[end + 1] if end + 1 < len(lines) else ""
        if _is_said_again(lines[end], after):
            break
        widest = max(widest, len(lines[end]))
        end += 1
    return _Block(end, "prose")


def _continues(line: str, following: str, widest: int) -> bool:
    bare = following.lstrip()
    if not bare or bare[0] in "`~#" or _is_said_again(line, following):
        return False
    if any(pattern.match(following) for pattern in (_RECORD, _CONCLUSION, _TRACEBACK)):
        return False
    if _is_code(following) or _are_rows(line, following):
        return False
    # A wrapped line is nearly as wide as its paragraph; a short one followed by a capital ended.
    return bare[0].islower() or (len(line) < 200 and len(line) > 0.7 * min(widest, 100))


def _are_rows(line: str, following: str) -> bool:
    """Whether two lines belong to one table: of so many fields each, or numbered the same way."""
    row, next_row = line.strip(), following.strip()
    if "\t" in row and row.count("\t") == next_row.count("\t"):
        return True
    # Prose has a space behind its commas.
    fields = row.count(",") - row.count(", ")
    if fields >= _FIELDS_MIN and fields == next_row.count(",") - next_row.count(", "):
        return True
    if row.count("  ") >= _FIELDS_MIN and next_row.count("  ") >= _FIELDS_MIN:
        return True
    numbered = _NUMBERED.match(row)
    return numbered is not None and next_row.startswith(numbered[1])


def _pieces(text: str, start: int, end: int, kind: str) -> Iterator[Segment]:
    if kind in {"fence", "conclusion", "repeat"}:
        yield Segment(start, end, kind)
        return
    if kind == "prose":
        for sentence in _SENTENCE_END.finditer(text, start, end):
            if sentence.end() - start >= _SENTENCE_CHARS_MIN or sentence[0][0] > _LATIN_LAST:
                yield from _bounded(text, start, sentence.end(), kind)
                start = sentence.end()
    yield from _bounded(text, start, end, kind)


def _bounded(text: str, start: int, end: int, kind: str) -> Iterator[Segment]:
    while end - start > PIECE_CHARS_MAX:
        space = text.rfind(" ", start + PIECE_CHARS_MAX * 3 // 4, start + PIECE_CHARS_MAX)
        cut = space + 1 if space >= 0 else start + PIECE_CHARS_MAX
        yield Segment(start, cut, kind)
        start = cut
    if start < end:
        yield Segment(start, end, kind)
