"""The simulator measures itself by what it did, on whatever machine."""

from __future__ import annotations

from simulations.plan import draw
from simulations.speed import lab, measure
from simulations.story import tell


def test_a_measured_story_is_the_same_story() -> None:
    scenario = lab(3, 6.0, has_faults=False)
    speed, report = measure(scenario, 1)
    assert report.trace_hash == tell(draw(scenario, 1)).trace_hash
    assert report.violation is None
    assert speed.nodes == 3
    assert speed.virtual_s >= 6.0
    assert speed.messages > 0
    assert speed.virtual_h_per_minute > 0
    assert 0 < speed.gossip_heard_kb_s < 64
    assert 0 < speed.streams_kb_s < 64
