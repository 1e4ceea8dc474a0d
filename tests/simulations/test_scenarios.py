"""Scenario files: ours all load, and what is wrong with one is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations import scenarios
from simulations.scenarios import ScenarioError, load


@pytest.mark.parametrize("name", scenarios.names())
def test_ours_can_be_loaded_and_say_what_they_are_about(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.nodes >= 3
    assert len(scenario.about) > 10


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('about = "x"\nseconds = 5\n[[devices]]\ncount = 4\nname = "d"\n')
    mine = load(str(path))
    assert (mine.name, mine.nodes, mine.seconds) == ("mine", 4, 5.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("about = ", "Invalid value"),
        ('about = "x"', "devices: Field required"),
        ('about = "x"\ndevices = []', "devices: Tuple should have at least 1 item"),
        ('about = "x"\nspeed = 3\n[[devices]]\ncount = 1\nname = "d"', "speed: Extra inputs"),
        ('about = "x"\n[[devices]]\ncount = 0\nname = "d"', r"devices\.0\.count: Input should be"),
        (
            'about = "x"\nfaults = { kinds = ["crsh"] }\n[[devices]]\ncount = 1\nname = "d"',
            "no fault is called crsh; there are crash, restart",
        ),
    ],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=complaint):
        load(str(path))


def test_one_that_is_not_there_is_told_which_are() -> None:
    with pytest.raises(ScenarioError, match=r"No such file or directory; there are .*home"):
        load("nowhere")
