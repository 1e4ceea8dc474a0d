"""Tier B by the command line: small here, and of any size by hand."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from simulations.__main__ import main
from simulations.scale import KINDS_FOR_VAST, VAST, sized


@pytest.mark.parametrize("nodes", [10, 333, 1000, 10_000])
def test_it_has_as_many_nodes_as_are_asked_for(nodes: int) -> None:
    scenario = sized(nodes, 10.0)
    assert scenario.nodes == nodes
    assert scenario.seconds + scenario.settle_s == 600.0
    assert scenario.faults is not None
    assert (scenario.faults.kinds == KINDS_FOR_VAST) == (nodes > VAST)


def test_the_command_tells_what_it_cost_and_what_came_of_it() -> None:
    done = CliRunner().invoke(main, ["scale", "--nodes", "20", "--minutes", "0.5", "--calm"])
    assert done.exit_code == 0, done.output
    assert "20 nodes, 0.5 min" in done.output
    assert "no promise was broken" in done.output


def test_a_page_of_thousands_is_refused_in_words() -> None:
    done = CliRunner().invoke(main, ["report", "--scenario", "campus"])
    assert done.exit_code == 2
    assert "no page" in done.output
