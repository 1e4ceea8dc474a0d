"""A story as one HTML page that needs nothing else: timelines to look at, numbers beside them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from statistics import quantiles

from simulations.reports import Report
from simulations.timeline import Span, TaskLine, Timeline

WIDTH = 1000
LANE = 18
LEFT = 110
COLOURS = (
    "#4e79a7", "#f28e2b", "#76b7b2", "#e15759", "#59a14f", "#edc948", "#b07aa1", "#9c755f",
)  # fmt: skip
"""Of coordinators, by number (Tableau's ten, less two)."""

STEPS_S = (1, 2, 5, 10, 20, 60, 120, 300, 600)

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px;
       color: #222; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem }
p.note { color: #666; margin: .2rem 0 .5rem } table { border-collapse: collapse }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums }
svg { display: block; overflow: visible } svg text { font-size: 11px; fill: #333 }
h1, p, td { overflow-wrap: anywhere } th { vertical-align: top }
.broken { color: #b00020; font-weight: 600 } .fine { color: #2e7d32 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } svg text { fill: #ccc } p.note { color: #999 }
  .broken { color: #ff8a80 } .fine { color: #81c784 } }
@media (max-width: 800px) {
  body { margin: 1rem .8rem } h1 { font-size: 1.2rem }
  .chart { overflow-x: auto } .chart svg { width: 820px }
  th, td { display: block; padding: 0 } td { margin-bottom: .6rem } }
"""


def page(report: Report) -> str:
    """Of a story that was told with its timeline."""
    timeline, plan = report.timeline, report.plan
    assert timeline is not None
    scale = _Scale(max(timeline.lasted_s, 1.0))
    title = f"{plan.scenario.name}, seed {plan.seed}"
    verdict = (
        f'<p class="broken">broken: {escape(str(report.violation))}</p>'
        if report.violation
        else '<p class="fine">no promise was broken</p>'
    )
    lasted = (
        f"trace {report.trace_hash}; {timeline.lasted_s:.0f} virtual seconds, of which faults had "
        f"{max(timeline.healed_s, 0):.0f}. Hover over a bar for its words."
    )
    parts = [
        "<!doctype html><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}: {escape(plan.scenario.about)}</h1>",
        verdict,
        f"<p class=note>{lasted}</p>",
        _section("Faults", "What was done to whom.", _faults(report, scale)),
        _section(
            "Who was up, and who was believed gone",
            "Upper bar: the process was up. Red below it: others could not reach it, or took it "
            "for gone; the more of them, the darker.",
            _presence(timeline, scale),
        ),
        _section(
            "Tasks",
            "From its submit to its end; the colour is its coordinator's, each change a new term; "
            "ticks are entries that became visible.",
            _tasks(timeline, scale),
        ),
        _section(
            "Load by node",
            "Cells (blue) and model calls (orange) at work, as the node says of itself.",
            _load(timeline, scale),
        ),
        _section("Numbers", "", _numbers(report)),
    ]
    return "\n".join(parts) + "\n"


def _section(title: str, about: str, body: str) -> str:
    return f"<h2>{title}</h2><p class=note>{about}</p>{body}"


class _Scale:
    def __init__(self, lasted_s: float) -> None:
        self.lasted_s = lasted_s

    def x(self, at_s: float) -> float:
        return LEFT + at_s / self.lasted_s * (WIDTH - LEFT)

    def bar(
        self,
        span: tuple[float, float],
        rows: tuple[float, float],
        colour: str,
        words: str,
        opacity: float = 1.0,
    ) -> str:
        """From when to when; from where down, and how high."""
        x, end = self.x(span[0]), self.x(span[1])
        y, height = rows
        return (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(end - x, 1.0):.1f}" height="{height:.1f}" '
            f'fill="{colour}" fill-opacity="{opacity:.2f}"><title>{escape(words)}</title></rect>'
        )

    def chart(self, lanes: Iterable[tuple[str, list[str]]]) -> str:
        """Lanes from above to below, each drawn at y = 0, with a ruler of time beneath."""
        rows = list(lanes)
        drawn = [
            f'<g transform="translate(0 {number * LANE})">'
            f'<text x="0" y="12">{escape(name)}</text>{"".join(marks)}</g>'
            for number, (name, marks) in enumerate(rows)
        ]
        bottom = len(rows) * LANE
        step = next(
            s for s in (1, 2, 5, 10, 20, 60, 120, 300, 600, 10**9) if self.lasted_s <= 12 * s
        )
        ruler = [
            f'<text x="{self.x(at):.1f}" y="{bottom + 14}">{at} s</text>'
            for at in range(0, int(self.lasted_s) + 1, step)
        ]
        return (
            f'<div class=chart tabindex=0><svg viewBox="0 0 {WIDTH} {bottom + 20}" width="100%">'
            f"{''.join(drawn)}{''.join(ruler)}</svg></div>"
        )


def _words(span: Span, who: str) -> str:
    return f"{who}: {span.what}, {span.from_s:.2f} to {span.until_s:.2f} s"


def _faults(report: Report, scale: _Scale) -> str:
    began_s = report.timeline.began_s if report.timeline else 0.0
    lanes: dict[str, list[str]] = {}
    for fault in report.plan.faults:
        at_s = began_s + fault.at_s
        until_s = min(at_s + fault.lasts_s, scale.lasted_s)
        if at_s < scale.lasted_s:
            bar = scale.bar((at_s, until_s), (3, 11), "#c44", str(fault), 0.7)
            lanes.setdefault(fault.kind, []).append(bar)
    return scale.chart(sorted(lanes.items())) if lanes else "<p>none</p>"


def _presence(timeline: Timeline, scale: _Scale) -> str:
    lanes: list[tuple[str, list[str]]] = []
    for number in sorted(timeline.up):
        marks = [
            scale.bar((one.from_s, one.until_s), (2, 6), "#59a14f", _words(one, f"node {number}"))
            for one in timeline.up[number]
        ]
        observers = timeline.missed.get(number, {})
        share = 1 / max(len(timeline.up) - 1, 1)
        marks += [
            scale.bar(
                (one.from_s, one.until_s),
                (9, 6),
                "#d62728",
                _words(one, f"node {number} as node {observer} sees it"),
                max(share, 0.1),
            )
            for observer, spans in sorted(observers.items())
            for one in spans
        ]
        lanes.append((f"node {number}", marks))
    return scale.chart(lanes)


def _tasks(timeline: Timeline, scale: _Scale) -> str:
    lanes = [
        (f"{name} at {line.submitter}", _task(name, line, scale))
        for name, line in timeline.tasks.items()
    ]
    return scale.chart(lanes) if lanes else "<p>none</p>"


def _task(name: str, line: TaskLine, scale: _Scale) -> list[str]:
    until_s = line.ended_s if line.end else scale.lasted_s
    words = f"{name}: {line.end or 'not over'} after {until_s - line.asked_s:.2f} s"
    marks = [scale.bar((line.asked_s, until_s), (3, 12), "#bbb", words)]
    for term in line.terms:
        leader = term.what.partition(" ")[0]
        colour = COLOURS[int(leader) % len(COLOURS)] if leader.isdigit() else "#888"
        marks.append(
            scale.bar((term.from_s, term.until_s), (5, 8), colour, _words(term, "led by node"))
        )
    marks += [
        f'<line x1="{scale.x(at):.1f}" x2="{scale.x(at):.1f}" y1="3" y2="15" stroke="#222"/>'
        for at in line.entries_s
    ]
    return marks


def _load(timeline: Timeline, scale: _Scale) -> str:
    most = max(
        (cells + calls for at in timeline.load.values() for _, cells, calls in at), default=1
    )
    lanes: list[tuple[str, list[str]]] = []
    for number in sorted(timeline.load):
        marks: list[str] = []
        points = timeline.load[number]
        ends = [at for at, _, _ in points[1:]] + [scale.lasted_s]
        for (at, cells, calls), until in zip(points, ends, strict=True):
            words = f"node {number}: {cells} cells, {calls} calls from {at:.1f} s"
            high, more = 14 * cells / max(most, 1), 14 * calls / max(most, 1)
            if cells:
                marks.append(scale.bar((at, until), (15 - high, high), "#4e79a7", words))
            if calls:
                marks.append(scale.bar((at, until), (15 - high - more, more), "#f28e2b", words))
        lanes.append((f"node {number}", marks))
    return scale.chart(lanes)


def _numbers(report: Report) -> str:
    ends = ", ".join(f"{count} {end}" for end, count in sorted(report.ends.items())) or "none"
    rows = [
        ("tasks", ends),
        ("time to their end", percentiles(report.task_s)),
        ("terms, entries", f"{report.terms}, {report.entries}"),
        ("cells begun / visible", f"{report.cells_begun} / {report.cells_visible}"),
        ("model calls", str(report.calls)),
        ("bytes on streams, gossip", f"{report.stream_bytes}, {report.gossip_bytes}"),
        ("faults fired", _counts(report.fired)),
        ("invariants looked at", _counts(report.evaluated)),
        ("messages", _counts(dict(report.messages.most_common(12)))),
    ]
    cells = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def percentiles(times_s: list[float]) -> str:
    """In words: the median, and the slowest in ten and in a hundred."""
    if len(times_s) < 2:
        return "too few to say"
    cuts = quantiles(times_s, n=100)
    return f"p50 {cuts[49]:.2f} s, p90 {cuts[89]:.2f} s, p99 {cuts[98]:.2f} s"
