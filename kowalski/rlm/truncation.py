"""Cuts text to what a window or a terminal can bear; the whole text stays wherever it came from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

OUTPUT_CHARS_MAX: Final = 8192

# What a terminal acts on (ECMA-48): strings such as a window title, in 7 and 8 bit form; control
# sequences such as colours; other escapes; at last every lone control character, so that nothing
# is left that could begin a sequence. An unfinished string loses its beginning only: a terminal
# would hide all that follows, and a reader must not.
_TERMINAL = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]+[0-~]"
    r"|\x1b[0-~]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    # Bidirectional controls, which can show code in another order than it runs (CVE-2021-42574).
    r"|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_CARRIAGE_RETURN = re.compile(r"\r\n?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Cut:
    text: str
    omitted_chars: int
    """0 if `text` is the whole."""


def head_and_tail(text: str, limit_chars: int = OUTPUT_CHARS_MAX) -> Cut:
    """At most `limit_chars` of `text`: its two ends, and between them how much is missing.

    An end moves to a line border if that costs no more than a quarter of it. A limit too small for
    the mark leaves the head alone.
    """
    if len(text) <= limit_chars:
        return Cut(text, 0)
    room = limit_chars - len(_mark(len(text)))
    if room < 2:
        return Cut(text[:limit_chars], len(text) - limit_chars)
    head = text[: room - room // 2]
    border = head.rfind("\n") + 1
    if border * 4 >= len(head) * 3:
        head = head[:border]
    tail = text[-(room // 2) :]
    border = tail.find("\n") + 1
    if border > 0 and border * 4 <= len(tail):
        tail = tail[border:]
    omitted_chars = len(text) - len(head) - len(tail)
    return Cut(head + _mark(omitted_chars) + tail, omitted_chars)


def text_of(output: bytes) -> str:
    """The UTF-8 text that a program wrote; what is none becomes U+FFFD."""
    return output.decode("utf-8", "replace")


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey; only tab and line feed stay.

    A carriage return becomes a line feed, so that no line can overwrite another.
    """
    text = _CARRIAGE_RETURN.sub("\n", text)
    return _SURROGATE.sub("\ufffd", _TERMINAL.sub("", text))


def _mark(omitted_chars: int) -> str:
    return f"\n[... {omitted_chars} characters left out ...]\n"
