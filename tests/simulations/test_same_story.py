"""The same seed is the same story by whoever tells it, and a difference is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulations.same_story import HASH_SEEDS, SCENARIOS, Teller, differences, stories, tellers

PYTHON = Path(sys.executable)


def test_scenarios_take_turns() -> None:
    assert stories(len(SCENARIOS) + 1) == [*(f"{one}:1" for one in SCENARIOS), f"{SCENARIOS[0]}:2"]


def test_the_first_interpreter_is_asked_in_every_mood() -> None:
    asked = tellers([PYTHON, Path("other")])
    assert [one.hash_seed for one in asked[:-1]] == list(HASH_SEEDS)
    assert asked[-1].python == Path("other")


def test_two_moods_tell_the_same_to_the_byte() -> None:
    told = {str(mood): Teller(PYTHON, mood).hashes(["home:1", "home:2"]) for mood in (0, 5)}
    assert differences(told) == []
    assert len(set(told["0"].values())) == 2


def test_a_difference_is_told_with_who_tells_what() -> None:
    told = {"one": {"home:1": "a", "home:2": "b"}, "other": {"home:1": "a", "home:2": "c"}}
    assert differences(told) == ["home:2: c by other, b by one"]


def test_who_cannot_tell_says_why() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        Teller(PYTHON, 0).hashes(["nowhere:1"])
    assert "nowhere" in failed.value.stderr
