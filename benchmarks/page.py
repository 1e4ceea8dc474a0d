"""Results as one HTML page that needs nothing else: tables, and a plot for everything measured."""

from __future__ import annotations

from html import escape
from math import log10

from benchmarks.figures import OURS, Figure
from benchmarks.results import Outcome, Results, about, number, said, table

BAR_PX, GAP_PX = 18, 8
LABEL_PX, PLOT_PX, VALUE_PX = 210, 420, 230
LOG_FROM = 50.0
"""Where the largest is so many times the least, lengths are of logarithms."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b2330; --quiet: #5b6675; --ours: #2463b4;
  --others: #98a4b5; --line: #d9dee6; --ground: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --quiet: #9aa5b4; --ours: #6aa5f0;
  --others: #56627a; --line: #2c3542; --ground: #12161c } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem } h3 { font-size: 1rem; margin: 1.6rem 0 .3rem }
.quiet { color: var(--quiet); white-space: pre-line }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top }
svg { max-width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) }
svg .ours { fill: var(--ours) } svg .others { fill: var(--others) }
svg .range { stroke: var(--ink); stroke-width: 1.5 }
pre { overflow-x: auto; font-size: .8rem }
"""


def page(results: Results) -> str:
    """The whole document."""
    parts = [_outcome(outcome) for outcome in results.outcomes]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>kowalski-node: benchmarks</title><style>{STYLE}</style></head><body>"
        f'<h1>Benchmarks of kowalski-node</h1><p class="quiet">{escape(about(results))}</p>'
        f"{''.join(parts)}</body></html>\n"
    )


def _outcome(outcome: Outcome) -> str:
    parts = [
        f"<h2>{escape(outcome.name)}: {escape(outcome.about)}</h2>",
        f'<p class="quiet"><code>{escape(outcome.command)}</code>, {outcome.took_s:.0f} s</p>',
    ]
    troubles = [f"{one.peer}: {one.failed}" for one in outcome.failures]
    troubles += [outcome.failure] if outcome.failure else []
    parts += [f'<p class="quiet">Not measured: {escape(one)}</p>' for one in troubles]
    if outcome.figures:
        parts.append(f'<div class="scroll">{_table(table(outcome))}</div>')
    if len(outcome.peers) > 1:
        parts += [_plot(what, outcome.of(what)) for what in outcome.whats]
    told = f"<pre>{escape(outcome.output)}</pre>"
    parts.append(f"<details><summary>All that it printed</summary>{told}</details>")
    return "".join(parts)


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in body)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _plot(what: str, figures: tuple[Figure, ...]) -> str:
    """Bars below one another, a line from least to most across each."""
    scale, is_log = scale_of(figures)
    height = len(figures) * (BAR_PX + GAP_PX)
    width = LABEL_PX + PLOT_PX + VALUE_PX
    bars = "".join(_bar(one, row * (BAR_PX + GAP_PX), scale) for row, one in enumerate(figures))
    note = ' <span class="quiet">(logarithmic)</span>' if is_log else ""
    told = "; ".join(f"{one.peer} {number(one.median)}" for one in figures)
    return (
        f"<h3>{escape(what)}{note}</h3>"
        f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{escape(f'{what}: {told}')}</title>{bars}</svg>"
    )


def scale_of(figures: tuple[Figure, ...]) -> tuple[Scale, bool]:
    """How long a value is drawn, in pixels, and whether lengths are of logarithms."""
    most = max((one.most for one in figures), default=0.0) or 1.0
    positive = [value for one in figures for value in (one.least, one.median) if value > 0]
    least = min(positive, default=most)
    if most / least < LOG_FROM:
        return Scale(most, None), False
    return Scale(most, least / 2), True


class Scale:
    """From a value to pixels; with `floor` by logarithms, all below it at nothing."""

    def __init__(self, most: float, floor: float | None) -> None:
        self._most = most
        self._floor = floor

    def __call__(self, value: float) -> float:
        if self._floor is None:
            return max(0.0, PLOT_PX * value / self._most)
        if value <= self._floor:
            return 0.0
        return PLOT_PX * log10(value / self._floor) / log10(self._most / self._floor)


def _bar(one: Figure, top: float, scale: Scale) -> str:
    kind = "ours" if one.peer.startswith(OURS) else "others"
    middle, text = top + BAR_PX / 2, top + BAR_PX - 5
    begin, end = LABEL_PX + scale(one.least), LABEL_PX + scale(one.most)
    length = scale(one.median)
    across = (
        f'<line class="range" x1="{begin:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}"/>'
        if one.most > one.least
        else ""
    )
    value_at = max(LABEL_PX + length, end) + 8
    return (
        f'<text x="{LABEL_PX - 8}" y="{text}" text-anchor="end">{escape(one.peer)}</text>'
        f'<rect class="{kind}" x="{LABEL_PX}" y="{top}" width="{length:.1f}" height="{BAR_PX}"/>'
        f'{across}<text x="{value_at:.1f}" y="{text}">{escape(said(one))}</text>'
    )
