"""What one `python -m benchmarks` found, as JSON, and as tables for people and for Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import OURS, Failure, Figure
from benchmarks.machine import Machine

LINE_CHARS_MAX = 160


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one scenario: its figures, what could not be measured, and all that it printed.

    `failure`: why it ended before its end; empty if it did not.
    """

    name: str
    about: str
    command: str
    took_s: float
    figures: tuple[Figure, ...] = ()
    failures: tuple[Failure, ...] = ()
    failure: str = ""
    output: str = ""

    @property
    def whats(self) -> tuple[str, ...]:
        """What was measured, each once, in the order in which it was told."""
        return tuple(dict.fromkeys(one.what for one in self.figures))

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.peer for one in self.figures))

    def of(self, what: str) -> tuple[Figure, ...]:
        """One for each peer."""
        return tuple({one.peer: one for one in self.figures if one.what == what}.values())


@dataclass(frozen=True, slots=True)
class Results:
    """`versions` of the peers that were there, `absent`: why others were not."""

    machine: Machine
    load_after: float
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))


def load(path: Path) -> Results:
    """What `Results.save` wrote."""
    fields: dict[str, Any] = json.loads(path.read_text())
    outcomes = tuple(
        Outcome(
            **{
                **one,
                "figures": tuple(Figure(**figure) for figure in one["figures"]),
                "failures": tuple(Failure(**failure) for failure in one["failures"]),
            }
        )
        for one in fields.pop("outcomes")
    )
    machine = Machine(**fields.pop("machine"))
    return Results(machine=machine, outcomes=outcomes, **fields)


def number(value: float) -> str:
    """Three figures that count, or all of a whole part."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def said(figure: Figure) -> str:
    """A median, with least and most where they differ, and processor time."""
    words = number(figure.median)
    if number(figure.least) != number(figure.most):
        words += f" ({number(figure.least)} to {number(figure.most)})"
    return words if not figure.cpu_ms else f"{words}; CPU {number(figure.cpu_ms)} ms"


def about(results: Results) -> str:
    """Machine, moment, load and versions, in a few lines."""
    machine = results.machine
    python = f"Python {machine.python}"
    libraries = ", ".join(f"{name} {told}" for name, told in machine.versions.items())
    lines = [
        f"{machine.date}, {machine.cores} cores, {machine.platform}, {python}, {libraries}.",
        f"Load average {machine.load:.1f} at the beginning, {results.load_after:.1f} at the end.",
    ]
    if results.versions:
        told = ", ".join(f"{name} {version}" for name, version in results.versions.items())
        lines.append(f"Beside: {told}.")
    lines += [f"Not measured: {name}: {why}." for name, why in results.absent.items()]
    return "\n".join(lines)


def table(outcome: Outcome, header: str = "what") -> list[list[str]]:
    """Rows of cells, the first of them the header: a column for each peer, ours first."""
    peers = sorted(outcome.peers, key=lambda peer: not peer.startswith(OURS))
    rows = [[header, *peers]]
    for what in outcome.whats:
        by_peer = {one.peer: one for one in outcome.of(what)}
        cells = [said(by_peer[peer]) if peer in by_peer else "" for peer in peers]
        rows.append([what, *cells])
    return rows


def as_markdown(results: Results) -> str:
    """All tables, for a document."""
    parts = [about(results)]
    for outcome in results.outcomes:
        parts.append(f"### {outcome.about[:1].upper()}{outcome.about[1:]}\n\n`{outcome.command}`")
        if outcome.figures:
            parts.append(_markdown(table(outcome)))
        parts += [_trouble(outcome)] if _trouble(outcome) else []
    return "\n\n".join(parts)


def _trouble(outcome: Outcome) -> str:
    told = [f"Not measured: {one.peer}: {_one_line(one.failed)}." for one in outcome.failures]
    if outcome.failure:
        told.append(f"It ended before its end: {_one_line(outcome.failure)}.")
    return "\n".join(dict.fromkeys(told))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LINE_CHARS_MAX]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    head, *body = rows
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, body)])


BEGIN, END = "<!-- the last comparison -->", "<!-- end of the last comparison -->"


def put_into(document: str, markdown: str) -> str:
    """`document` with the last comparison in place of the one before it.

    Raises:
        ValueError: it has no place for one.
    """
    before, begins, rest = document.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not begins or not ends:
        raise ValueError(f"no place marked {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{markdown}\n\n{END}{after}"
