"""Tables that are looked at live: one line a row, however narrow the terminal.

What does not fit is left out by columns, the least important first, and then cut within its cell:
a row that went on below would push the others out of their place at each look.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

Row = tuple[str, ...]

GAP = 2
CELL_MIN = 12
"""What is wider may be cut to as much; what is not stays whole."""
NOTHING = frozenset({"", "-"})


def live_table(
    columns: Sequence[str],
    rows: Sequence[Row],
    width: int,
    *,
    importance: Sequence[str],
    whole: Sequence[str] = (),
) -> str:
    """The columns that `importance` names, the most important first, as many of them as fit.

    The cells of those in `whole` are not cut.
    """
    cells = [tuple(_one_line(cell) for cell in row) for row in rows]
    natural = {
        name: max(cell_width(row[at]) for row in [tuple(columns), *cells])
        for at, name in enumerate(columns)
        if name in importance and (at == 0 or any(row[at] not in NOTHING for row in cells))
    }
    kept = [name for name in importance if name in natural]
    least = {name: min(natural[name], CELL_MIN) for name in kept}
    least |= {name: natural[name] for name in kept if name in whole}
    while len(kept) > 1 and _width_of(least[name] for name in kept) > width:
        del least[kept.pop()]
    widths = _shared_out({name: natural[name] for name in kept}, least, width)
    places = [(at, widths[name]) for at, name in enumerate(columns) if name in widths]
    return "\n".join(
        (" " * GAP).join(_fit(row[at], room) for at, room in places).rstrip()
        for row in [tuple(columns), *cells]
    )


def cut(text: str, width: int) -> str:
    """One line of at most `width` cells."""
    text = _one_line(text)
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"[: max(width, 0)]


def cell_width(text: str) -> int:
    """What a terminal gives it: two cells for wide characters, none for marks upon others."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def _shared_out(natural: Mapping[str, int], least: Mapping[str, int], width: int) -> dict[str, int]:
    """Each column's width: what is too much is taken from the widest, cell by cell."""
    widths = dict(natural)
    while (too_much := _width_of(widths.values()) - width) > 0:
        elastic = [name for name in widths if widths[name] > least[name]]
        if not elastic:  # one column is left, and is still too wide
            return {name: max(has - too_much, 1) for name, has in widths.items()}
        widths[max(elastic, key=lambda name: widths[name])] -= 1
    return widths


def _width_of(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + GAP * (len(found) - 1)


def _fit(cell: str, width: int) -> str:
    shown = cut(cell, width)
    return shown + " " * (width - cell_width(shown))


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
