"""Campaigns: every scenario has its share at any moment, and what was told is not told again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from simulations import scenarios
from simulations.campaigns import Campaign, schedule, table
from simulations.witness import Violation
from tests.simulations.test_seeds import outcome


def test_scenarios_take_turns_by_their_shares() -> None:
    stories = schedule(1000, 5)
    assert len(stories) == len(set(stories)) == sum(scenarios.split(1000).values())
    shares = Counter(name for name, _ in stories)
    early = Counter(name for name, _ in stories[: len(stories) // 4])
    for name, share in shares.items():
        assert abs(early[name] - share / 4) <= 1
        assert min(seed for told, seed in stories if told == name) == 5


def test_what_was_told_is_read_again_and_the_rest_is_left(tmp_path: Path) -> None:
    path = tmp_path / "below" / "campaign.jsonl"
    campaign = Campaign.read(path, "abc")
    broken = outcome(2, violation=Violation("visible_once", "twice", 1.0), evaluated=Counter(a=1))
    campaign.add("home", outcome(1))
    campaign.add("split", broken)
    again = Campaign.read(path, "abc")
    assert again.told == {("home", 1): outcome(1), ("split", 2): broken}
    assert again.left([("home", 1), ("home", 2)]) == [("home", 2)]
    assert not Campaign.read(path, "def").told, "another commit tells its own"


def test_a_line_that_was_cut_off_was_not_told(tmp_path: Path) -> None:
    path = tmp_path / "campaign.jsonl"
    Campaign.read(path, "abc").add("home", outcome(1))
    with path.open("a") as file:
        file.write(path.read_text()[:40])
    campaign = Campaign.read(path, "abc")
    assert set(campaign.told) == {("home", 1)}
    campaign.add("home", outcome(2))
    assert set(Campaign.read(path, "abc").told) == {("home", 1), ("home", 2)}


def test_the_table_has_a_row_for_each_scenario_and_one_for_all(tmp_path: Path) -> None:
    campaign = Campaign.read(tmp_path / "c.jsonl", "abc")
    campaign.add("home", outcome(1))
    campaign.add("split", outcome(1, crash="fell"))
    rows = table(campaign).splitlines()
    assert rows[2:] == [
        "| home | 1 | 0 | 1 | 2 | 0.0 | 0.50 |",
        "| split | 1 | 1 | 1 | 2 | 0.0 | 0.50 |",
        "| **all** | 2 | 1 | 2 | 4 | 0.0 | 0.50 |",
    ]


def test_what_no_story_has_shown_is_said_of_the_scenarios_that_were_told(tmp_path: Path) -> None:
    campaign = Campaign.read(tmp_path / "c.jsonl", "abc")
    known = {name: scenarios.load(name) for name in ("home", "detached")}
    campaign.add("home", outcome(1))
    faults, missing = campaign.unproven(known)
    assert faults.startswith("NEVER FIRED: ")
    assert " crash," not in faults
    assert "no_lost_ack" in missing
    assert "visible_once" not in missing
    assert "keepers_agree" not in missing, "no story of those was told"
