"""The command line of the simulations."""

from __future__ import annotations

import dataclasses
import re

import pytest
from click.testing import CliRunner

from simulations.__main__ import main, tell
from simulations.scenario import ABLE


def test_run_prints_seed_hash_and_counts() -> None:
    done = CliRunner().invoke(main, ["run", "--seed", "5", "--minutes", "0.2"])
    assert done.exit_code == 0
    assert re.search(r"^seed 5: trace [0-9a-f]{16}, ", done.output, re.MULTILINE)
    assert re.search(r"^\d+ tasks answered, \d+ terms, ", done.output, re.MULTILINE)


def test_run_with_trace_prints_what_happened() -> None:
    done = CliRunner().invoke(main, ["run", "--seed", "5", "--minutes", "0.2", "--trace"])
    assert re.search(r"^\d+\.\d{3} task-0: (direct|blocks) at node \d$", done.output, re.MULTILINE)
    assert "healed" in done.output


def test_a_broken_promise_is_1_and_prints_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_models = dataclasses.replace(ABLE, models=())
    assert tell(4, 5, 0.3, is_traced=False, part=without_models) == 1
    output = capsys.readouterr().out
    assert "seed 5: task-" in output
    assert "replay: python -m simulations run --nodes 4 --seed 5 --minutes 0.3 " in output


@pytest.mark.parametrize("bad", [["--nodes", "1"], ["--minutes", "0"], ["--seed", "-1"]])
def test_what_makes_no_story_is_refused(bad: list[str]) -> None:
    assert CliRunner().invoke(main, ["run", *bad]).exit_code == 2
