"""A story as a page: well-formed, whole, and nothing in it that could run."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from simulations.menu import Fault
from simulations.pages import page, percentiles
from simulations.plan import draw
from simulations.reports import Report
from simulations.scenarios import Work, load
from simulations.story import tell
from simulations.witness import Violation

PLAN = draw(
    load("home").model_copy(
        update={
            "about": "three <script>devices</script>",
            "seconds": 8.0,
            "work": Work(every_s=3.0, direct=0.0),
            "faults": None,
        }
    ),
    4,
)
FAULTS = (
    Fault("power-cut", at_s=2.0, lasts_s=4.0, nodes=(1,), amount=0.0),
    Fault("crash", at_s=4000.0, lasts_s=4.0, nodes=(1,), amount=0.0),
)


@pytest.fixture(scope="module")
def report() -> Report:
    return tell(replace(PLAN, faults=FAULTS), keeps_timeline=True)


def charts(text: str) -> list[ET.Element]:
    starts = [part.partition("</svg>")[0] for part in text.split("<svg ")[1:]]
    return [ET.fromstring(f"<svg {start}</svg>") for start in starts]


def test_each_chart_has_a_lane_for_each_fault_node_and_task(report: Report) -> None:
    faults, presence, tasks, load_ = charts(page(report))
    assert [g[0].text for g in faults.iter("g")] == ["power-cut"], "the other was never told"
    assert [g[0].text for g in presence.iter("g")] == ["node 0", "node 1", "node 2"]
    assert [g[0].text for g in load_.iter("g")] == ["node 0", "node 1", "node 2"]
    assert report.timeline is not None
    names = [(g[0].text or "").partition(" ")[0] for g in tasks.iter("g")]
    assert names == list(report.timeline.tasks)


def test_bars_stay_within_the_chart_and_say_what_they_are(report: Report) -> None:
    for chart in charts(page(report)):
        for bar in chart.iter("rect"):
            assert 110 <= float(bar.get("x", "")) <= 1000
            assert float(bar.get("x", "")) + float(bar.get("width", "")) <= 1001.5
            assert bar[0].text


def test_words_of_a_scenario_are_words(report: Report) -> None:
    text = page(report)
    assert "<script>" not in text
    assert "three &lt;script&gt;devices" in text


def test_a_broken_promise_stands_at_the_top(report: Report) -> None:
    assert '<p class="fine">' in page(report)
    broken = replace(report, violation=Violation("visible_once", "twice", 3.0))
    assert page(broken).index("visible_once: twice") < page(broken).index("<svg")


def test_percentiles_of_too_few_are_not_made_up() -> None:
    assert percentiles([1.0]) == "too few to say"
    assert percentiles([float(n) for n in range(1, 101)]).startswith("p50 50.5")
