"""Trajectories played through the whole loop: real node, real sandbox, HTTP; turn by turn.

`tests.trajectories` has what the model says, what it must be shown then, and what comes of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kowalski import ExecutionResult
from kowalski.sync import Kowalski
from tests.scripted_model_server import Call, Script
from tests.served_in_thread import serve_in_thread
from tests.trajectories import HAY, LOOK, TRAJECTORIES, Trajectory

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

TURNS = 12


@dataclass(slots=True)
class Player:
    """The model: says what the trajectory of the question has for this turn."""

    asked: dict[str, list[Call]] = field(default_factory=dict)
    """Of each trajectory, the calls that want a turn; sub-calls are in `sub_calls`."""
    sub_calls: list[str] = field(default_factory=list)
    now: str = ""

    def say(self, call: Call) -> str:
        if self.now == "twenty turns":
            self.asked.setdefault(self.now, []).append(call)
            return LOOK.reply
        trajectory = TRAJECTORIES[self.now]
        if call.root_number is None:
            self.sub_calls.append(call.last)
            for part, reply in trajectory.sub_replies.items():
                if part in call.last:
                    return reply
            raise AssertionError(call.last)
        self.asked.setdefault(self.now, []).append(call)
        turn = sum(message["role"] == "assistant" for message in call.messages)
        if turn < len(trajectory.turns):
            return trajectory.turns[turn].reply
        assert trajectory.last is not None, "one turn more than it has"
        return trajectory.last


@dataclass(frozen=True, slots=True)
class Stage:
    k: Kowalski
    player: Player
    data_dir: Path

    def play(self, name: str) -> ExecutionResult[str]:
        self.player.now = name
        trajectory = TRAJECTORIES[name]
        return self.k.execute(
            trajectory.question,
            name.replace(" ", "-"),
            mode="rlm",
            context=trajectory.context,
            **{"max_iterations": TURNS, "timeout_s": 60.0, **trajectory.options},
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    player = Player()
    data_dir = tmp_path_factory.mktemp("trajectories") / "node"
    with serve_in_thread(Script(function=player.say)) as server:
        builder = Kowalski.builder().with_own_node("--backend", server.url).with_node(data_dir)
        with builder.build() as k:
            yield Stage(k, player, data_dir)


def cells_of(stage: Stage, task: str) -> list[str]:
    rows = stage.k.trace(task)["journal"]
    return [row["code"] for row in rows if row["kind"].endswith("cell-started")]


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_each_turn_runs_what_it_should_shows_what_came_and_ends_as_it_should(
    stage: Stage, name: str
) -> None:
    trajectory: Trajectory = TRAJECTORIES[name]
    result = stage.play(name)
    asked = stage.player.asked[name]
    turns = trajectory.options.get("max_iterations", TURNS)
    for number, (turn, after) in enumerate(zip(trajectory.turns, asked[1:], strict=False), 2):
        told = after.last
        assert (f"Turn {number} of {turns}" in told) == (number <= len(trajectory.turns))
        for words in turn.shown:
            assert words in told, (turn.reply, told)
        for words in turn.hidden:
            assert words not in told, (turn.reply, told)
        assert len(told) < 20_000, "however much a cell prints"
    assert len(asked) == len(trajectory.turns) + (trajectory.last is not None)
    assert result.text == trajectory.answer
    assert result.reservation.partition(":")[0] == trajectory.reservation
    assert len(cells_of(stage, result.task_id)) == sum(turn.cells for turn in trajectory.turns)
    # What the model was told once stays as it was: the window is only appended to.
    for before, after in itertools.pairwise(asked):
        assert after.messages[: len(before.messages)] == before.messages


def test_what_is_asked_twice_in_a_task_is_asked_of_the_model_once(stage: Stage) -> None:
    result = stage.play("sub-calls")
    assert stage.player.sub_calls.count("part a") == 1
    assert result.metrics.repeated == 1


def test_twenty_turns_over_ten_megabytes_leave_twelve_on_the_disk(stage: Stage) -> None:
    before = disk_bytes(stage.data_dir)
    stage.player.now = "twenty turns"
    hay = HAY * (10_000_000 // len(HAY))
    stage.k.execute("Which?", mode="rlm", context=hay, max_iterations=20)
    assert len(stage.player.asked["twenty turns"]) == 21
    assert 9_900_000 < disk_bytes(stage.data_dir) - before < 12_000_000


def disk_bytes(folder: Path) -> int:
    """Journals and contents; what has two names there is counted once.

    The node lives meanwhile: what it takes away before it is looked at is not counted.
    """
    sizes: dict[tuple[int, int], int] = {}
    for where, _, names in os.walk(folder):
        for path in (Path(where), *(Path(where, name) for name in names)):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())
