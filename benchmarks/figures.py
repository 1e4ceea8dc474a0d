"""Figures as a benchmark tells them: a line for people, and a record for `python -m benchmarks`.

Every figure is of one thing (`what`, with its unit in brackets at the end) at one peer: us, or what
a user would pick instead. Least and most are those of its values, which are the medians of runs
where there were several.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RECORD = "KOWALSKI_BENCHMARK_RECORD"
"""Names the file to which each figure is appended, one JSON object a line."""

OURS = "kowalski"
WIDTH = 66


@dataclass(frozen=True, slots=True)
class Figure:
    """`cpu_ms`: processor time of all processes involved, for one of what was measured."""

    what: str
    median: float
    least: float
    most: float
    peer: str = OURS
    cpu_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A peer that did not do what it was started for, and what it said last."""

    peer: str
    failed: str


def head() -> None:
    """What stands above the lines of `report`."""
    print(f"{'what':{WIDTH}} {'median':>10} {'least':>10} {'most':>10}  CPU", flush=True)


def report(
    what: str, values: Iterable[float], *, peer: str = OURS, cpu_ms: float | None = None
) -> None:
    """Tell one figure. `values` of at least one run."""
    told = list(values)
    figure = Figure(what, statistics.median(told), min(told), max(told), peer, cpu_ms)
    words = what if peer == OURS else f"{what}, {peer}"
    cpu = "" if cpu_ms is None else f"  {cpu_ms:.2f} ms"
    print(
        f"{words:{WIDTH}} {figure.median:10.3f} {figure.least:10.3f} {figure.most:10.3f}{cpu}",
        flush=True,
    )
    record(figure)


def report_failure(peer: str, why: str) -> None:
    """Tell that there is nothing of a peer: never leave it out in silence."""
    print(f"{peer}: {why}", flush=True)
    record(Failure(peer, why))


def record(told: Figure | Failure) -> None:
    """Keep it for `python -m benchmarks`, where that asks for it."""
    fields: dict[str, Any] = asdict(told)
    if path := os.environ.get(RECORD):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")


def read(path: Path) -> tuple[list[Figure], list[Failure]]:
    """What was recorded, in the order in which it was told."""
    figures: list[Figure] = []
    failures: list[Failure] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)
            if "failed" in fields:
                failures.append(Failure(**fields))
            else:
                figures.append(Figure(**fields))
    return figures, failures


@dataclass(slots=True)
class Table:
    """The medians of several runs, told at the end. In the order in which things first came."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    cpu_ms: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def keep(
        self, what: str, peer: str, values: Sequence[float], *, cpu_ms: float | None = None
    ) -> None:
        """Of one run."""
        self.values.setdefault((what, peer), []).append(statistics.median(values))
        if cpu_ms is not None:
            self.cpu_ms.setdefault((what, peer), []).append(cpu_ms)

    def report(self) -> None:
        whats = dict.fromkeys(what for what, _ in self.values)
        for wanted in whats:
            for (what, peer), values in self.values.items():
                if what == wanted:
                    cpu = self.cpu_ms.get((what, peer))
                    cpu_ms = statistics.median(cpu) if cpu else None
                    report(what, values, peer=peer, cpu_ms=cpu_ms)
