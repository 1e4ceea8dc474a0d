"""Colours of what people read on a terminal: headings, and how things stand.

Applied last, to text that was cleaned: whatever a peer wrote cannot choose a colour.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

BOLD, RED, YELLOW, GREEN, RESET = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"

_STATES = {
    **dict.fromkeys(("member", "alive", "answered", "ok"), GREEN),
    **dict.fromkeys(("suspect", "waiting", "draining", "warning", "warn", "left"), YELLOW),
    **dict.fromkeys(("failed", "fail", "refused", "absent", "cancelled"), RED),
}

# A cell of a table: between the edges of the line, or two spaces at least.
_CELL = re.compile(rf"(?:(?<=\s\s)|(?<=^))({'|'.join(_STATES)})(?=\s\s|\s*$)")
_HEADING = re.compile(r"[A-Z][A-Z0-9 .-]*")


def may_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """On a terminal that can, and unless its owner wants none: https://no-color.org."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def paint(text: str) -> str:
    """A table, or fields below one another, with its heading bold and its states in colour."""
    lines = text.split("\n")
    painted = [_CELL.sub(lambda found: f"{_STATES[found[1]]}{found[1]}{RESET}", ln) for ln in lines]
    if len(lines) > 1 and _HEADING.fullmatch(lines[0].strip()):
        painted[0] = f"{BOLD}{lines[0]}{RESET}"
    return "\n".join(painted)
