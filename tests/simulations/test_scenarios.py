"""Scenario files: ours all load, and what is wrong with one is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations import scenarios
from simulations.scenarios import ScenarioError, load, names, split

PLAIN = 'about = "x"\n[[devices]]\ncount = 3\nname = "d"\n'


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
        (
            'about = "x"\nspeed = 3\n[[devices]]\ncount = 1\nname = "d"',
            "speed: there is no such key",
        ),
        ('about = "x"\n[[devices]]\ncount = 0\nname = "d"', r"devices\.0\.count: Input should be"),
        (
            'about = "x"\nfaults = { kinds = ["crsh"] }\n[[devices]]\ncount = 1\nname = "d"',
            "no fault is called crsh; there are crash, restart",
        ),
        (f'seconds = "8"\n{PLAIN}', "seconds: Input should be a valid number"),
        (f"seconds = true\n{PLAIN}", "seconds: Input should be a valid number"),
        (f"network = {{ packet_loss = 1.5 }}\n{PLAIN}", r"network\.packet_loss: Input should be"),
        (f"work = {{ evry_s = 1.0 }}\n{PLAIN}", r"work\.evry_s: there is no such key"),
        (f'faults = {{ spared = ["e"] }}\n{PLAIN}', r"faults\.spared: no device is called e"),
        (f'tier = "B"\nfaults = {{ kinds = ["tear"] }}\n{PLAIN}', "no fault is called tear"),
        (
            f'faults = {{ kinds = ["crash"], spared = ["d"] }}\n{PLAIN}',
            "crash wants 1 devices that it may befall",
        ),
        (
            'about = "x"\nfaults = { kinds = ["tear"] }\n[[devices]]\ncount = 1\nname = "d"',
            "tear wants 2 devices",
        ),
    ],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=complaint):
        load(str(path))


def test_a_file_that_is_no_text_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="can't decode"):
        load(str(path))
    with pytest.raises(ScenarioError, match="Is a directory"):
        load(str(tmp_path))


def test_one_that_is_not_there_is_told_which_are() -> None:
    with pytest.raises(ScenarioError, match=r"No such file or directory; there are .*home"):
        load("nowhere")


def test_a_campaign_has_every_scenario_by_its_share() -> None:
    parts = split(1000)
    assert set(parts) == {name for name in names() if load(name).share}
    assert all(count >= 1 for count in parts.values())
    assert parts["home"] > parts["wifi"] > parts["lab"]
    assert 900 < sum(parts.values()) < 1100
