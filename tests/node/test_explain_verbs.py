"""explain and dry runs as the control socket offers them, of whole nodes under virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import block
from tests.node.test_verbs import ALL, Emitted, Reply, ask, refusal

pytestmark = pytest.mark.trio


def rows(reply: Reply, name: str) -> list[Reply]:
    found = reply[name]
    assert isinstance(found, list)
    return found


async def test_explain_says_who_was_appointed_what_was_chosen_and_what_ran(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say hi"), mode="blocks", task="a")
        await world.result(0, task)
        for number in range(len(ALL)):
            told = await world.verbs(number)["explain"]({"task": "a"}, Emitted())
            assert (told["task"], told["state"], told["submitter_name"]) == (
                "a",
                "answered",
                "node-0",
            )
            (appointed,) = rows(told, "appointments")
            assert (appointed["name"], appointed["term"]) == ("node-1", 1)
            (leader,) = rows(appointed, "candidates")
            assert (leader["name"], leader["share"]) == ("node-1", 1.0)
            code, model = rows(told, "decisions")
            assert (code["wanted"], code["name"], code["by_name"]) == (
                "run python",
                "node-2",
                "node-1",
            )
            assert (model["wanted"], model["name"]) == ("ask model m", "node-3")
            assert [row["what"] for row in rows(told, "ran")] == ["cell 0 (python)", "call 0 (m)"]
            unable = [one for one in rows(code, "candidates") if "score" not in one]
            assert all(set(one) == {"peer", "name", "why"} for one in unable)
            assert len(unable) == 3
            assert told["unknown"] == []
            json.dumps(told)


async def test_explain_without_a_task_tells_the_last_choices_of_this_node(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        assert rows(await ask(world, "explain"), "decisions") == []
        await ask(world, "run", language="python", code="say x")
        (run,) = rows(await ask(world, "explain"), "decisions")
        assert (run["wanted"], run["way"], run["name"]) == ("run python", "only", "node-2")


@pytest.mark.parametrize(
    ("request_", "code", "part"),
    [
        ({"task": "nobodys"}, "unknown", "no peer that can be reached has a task nobodys"),
        ({"task": "no/such name"}, "usage", "task"),
        ({"task": "a", "more": 1}, "usage", "unknown field 'more'"),
        ({"task": "a@nobody"}, "usage", "no peer is called nobody"),
    ],
)
async def test_a_wrong_task_is_a_clear_error(
    virtual_time: JumpingClock, request_: Reply, code: str, part: str
) -> None:
    async with open_world(ALL) as world:
        told = await refusal(world, "explain", **request_)
        assert told["code"] == code
        assert part in str(told["message"])


async def test_a_dry_run_says_where_it_would_go_and_the_task_is_as_if_never_named(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes\n")
    async with open_world(ALL) as world:
        told = await ask(
            world,
            "dry_run",
            prompt=block("say hi"),
            mode="blocks",
            task_id="mine",
            context=[{"name": "notes.txt", "path": str(path)}],
        )
        assert (told["task"], told["is_named"], told["exit_code"]) == ("mine", True, 0)
        assert (told["mode"], told["model"], told["obstacle"]) == ("blocks", "m", None)
        assert [row["name"] for row in rows(told, "appointments")] == ["node-1"]
        assert [row["name"] for row in rows(told, "decisions")] == ["node-2", "node-3"]
        assert {row["by_name"] for row in rows(told, "decisions")} == {"node-1"}
        assert (told["seen_by_name"], told["seen_here_because"]) == ("node-1", "")
        assert world[0].submitter.tasks == ()
        assert (await refusal(world, "explain", task="mine"))["code"] == "unknown"
        again = await ask(world, "submit", prompt=block("say hi"), mode="blocks", task_id="mine")
        assert again["state"] == "answered"


@pytest.mark.parametrize(
    ("request_", "code", "exit_code"),
    [
        ({"prompt": "why?", "mode": "direct", "model": "nobody-has-it"}, "no_model", 5),
        ({"prompt": "no code", "mode": "blocks"}, "no_blocks", 1),
    ],
)
async def test_a_dry_run_ends_as_the_task_would(
    virtual_time: JumpingClock, request_: Reply, code: str, exit_code: int
) -> None:
    async with open_world(ALL) as world:
        told = await ask(world, "dry_run", **request_)
        assert told["exit_code"] == exit_code
        obstacle = told["obstacle"]
        assert isinstance(obstacle, dict)
        assert obstacle["code"] == code


async def test_a_dry_run_of_what_is_no_task_is_refused_as_the_task_is(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        for request in ({"prompt": " "}, {"prompt": "x", "mode": "dance"}):
            assert (await refusal(world, "dry_run", **request))["code"] == "usage"
