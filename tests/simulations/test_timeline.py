"""What a story looked like: who was up, who was missed, who led, who worked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulations.menu import Fault
from simulations.plan import Plan, draw
from simulations.reports import Report
from simulations.scenarios import Work, load
from simulations.story import tell
from simulations.timeline import Timeline

SHORT = load("home").model_copy(
    update={"seconds": 12.0, "work": Work(every_s=3.0, direct=0.0, cancelled=0.0), "faults": None}
)
QUIET = draw(SHORT, 4)
CUT = Fault("power-cut", at_s=3.0, lasts_s=6.0, nodes=(1,), amount=0.0)


def told(plan: Plan) -> tuple[Report, Timeline]:
    report = tell(plan, keeps_timeline=True)
    assert report.timeline is not None
    return report, report.timeline


def test_a_node_that_was_down_is_missed_by_the_others_meanwhile_and_not_for_ever() -> None:
    _, timeline = told(replace(QUIET, faults=(CUT,)))
    first, second = timeline.up[1]
    assert second.from_s - first.until_s >= 6.0
    assert second.until_s == pytest.approx(timeline.lasted_s, abs=0.1)  # they end as all is closed
    missing = timeline.missed[1]
    assert set(missing) == {0, 2}
    for spans in missing.values():
        assert first.until_s <= spans[0].from_s <= second.from_s
        assert spans[-1].until_s < timeline.lasted_s
    assert all(len(timeline.up[number]) == 1 for number in (0, 2))


def test_a_task_has_its_terms_its_entries_and_its_end() -> None:
    report, timeline = told(QUIET)
    assert len(timeline.tasks) == report.ends.total() > 0
    for line in timeline.tasks.values():
        assert line.end == "answered"
        assert line.terms[0].what.endswith("term 1")
        assert line.asked_s <= line.entries_s[0] <= line.entries_s[-1] <= line.ended_s
        assert line.terms[-1].until_s == line.ended_s
    assert sum(len(line.entries_s) for line in timeline.tasks.values()) == report.entries


def test_a_detached_task_has_the_terms_of_its_leaders_and_what_counted() -> None:
    quiet = load("detached").model_copy(update={"faults": None, "seconds": 8.0})
    report, timeline = told(draw(quiet, 2))
    detached = [ask for ask in report.plan.asks if ask.is_detached and ask.kind == "submit"]
    assert detached
    for ask in detached:
        line = timeline.tasks[ask.task]
        assert line.submitter == ask.node
        assert line.end == "over"
        assert line.terms[0].what.endswith("term 1")
        assert line.entries_s
        assert line.terms[-1].until_s == line.ended_s


def test_who_works_says_so() -> None:
    _, timeline = told(QUIET)
    assert max(cells for at in timeline.load.values() for _, cells, _ in at) >= 1
    assert 0.0 < timeline.began_s < timeline.healed_s < timeline.lasted_s


def test_to_remember_changes_nothing() -> None:
    assert told(QUIET)[0].trace_hash == tell(QUIET).trace_hash
