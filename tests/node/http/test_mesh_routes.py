"""The mesh over HTTP: verbs as JSON and as events."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trio

from kowalski.node.http.mesh_routes import VERB_ROUTES, changes
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.exchanges import exchange
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, LEADER, WORKER, block

MESH = (ASKER, LEADER, WORKER)


@pytest.mark.trio
async def test_who_is_here(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        peers = (await ask(room, "GET", "/peers")).json["peers"]
        assert {row["name"] for row in peers} == {"node-0", "node-1", "node-2"}
        assert (await ask(room, "GET", "/status")).json["name"] == "node-0"


@pytest.mark.trio
async def test_a_task_is_taken_in_and_looked_at(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        body = {"prompt": block("say 7"), "mode": "blocks"}
        told = await ask(room, "POST", "/tasks", body)
        assert told.status == 202
        task = told.json["task"]
        await world.until(lambda: world[0].submitter.find(task).is_over)
        whole = (await ask(room, "GET", f"/tasks/{task}")).json
        assert whole["state"] == "answered"
        assert "7" in whole["answer"]
        rows = (await ask(room, "GET", "/tasks?limit=1")).json["tasks"]
        assert [row["task"] for row in rows] == [task]


@pytest.mark.trio
async def test_a_task_is_followed_by_events(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        body = {"prompt": block("say 7"), "mode": "blocks"}
        told = await ask(room, "POST", "/tasks", body, accept="text/event-stream")
        kinds = [name for name, _ in told.events]
        assert kinds[0] == "submitted"
        assert "cell" in kinds
        name, result = told.events[-1]
        assert name == "done"
        assert isinstance(result, dict)
        assert result["state"] == "answered"


@pytest.mark.trio
async def test_a_task_is_explained_and_one_that_is_not_submitted_as_well(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        context = [{"name": "a.txt", "text": "the text"}]
        body = {"prompt": block("say 7"), "mode": "blocks", "context": context}
        would = (await ask(room, "POST", "/tasks/dry-run", body)).json
        assert [row["name"] for row in would["decisions"]] == ["node-2"]
        assert (await ask(room, "GET", "/tasks")).json["tasks"] == []
        task = (await ask(room, "POST", "/tasks", body)).json["task"]
        await world.until(lambda: world[0].submitter.find(task).is_over)
        told = (await ask(room, "GET", f"/tasks/{task}/explain")).json
        assert [row["wanted"] for row in told["decisions"]] == ["run python"]
        assert (await ask(room, "GET", "/tasks/nobodys/explain")).status == 404


@pytest.mark.trio
async def test_texts_come_along_and_files_are_not_read(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        body = {
            "prompt": block("say 7"),
            "mode": "blocks",
            "context": [{"name": "a.txt", "text": "the text"}],
        }
        task = (await ask(room, "POST", "/tasks", body)).json["task"]
        (one,) = world[0].submitter.find(task).spec.inputs
        assert (one.name, await world[0].store.read(one.content)) == ("a.txt", b"the text")
        assert list(tmp_path.iterdir()) == []
        for context in ([{"name": "a", "path": "/etc/passwd"}], "x", [{"name": "a"}], [1]):
            told = await ask(room, "POST", "/tasks", {**body, "context": context})
            assert told.status == 400
        told = await ask(room, "POST", "/fold", {"path": "/etc/passwd"})
        assert (told.status, told.json["error"]["code"]) == (400, "unsupported")


@pytest.mark.trio
async def test_a_program_is_run_with_its_output(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        told = await ask(room, "POST", "/run", {"language": "python", "code": "say 7"})
        assert told.json["stdout"] == "7\n"
        assert told.json["exit_code"] == 0
        assert told.json["name"] == "node-2"


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("GET", "/tasks/01M83QWMJNB2EXMBE293VXKR57", None, 404, "unknown"),
        ("GET", "/tasks?limit=many", None, 400, "invalid_request"),
        ("GET", "/tasks?limit=0", None, 400, "invalid_request"),
        ("POST", "/tasks", {"prompt": " "}, 400, "invalid_request"),
        ("POST", "/tasks", {"prompt": "x", "typo": 1}, 400, "invalid_request"),
        ("POST", "/run", {"language": "cobol", "code": ""}, 400, "invalid_request"),
        ("POST", "/revoke", {"peer": "node-1"}, 200, None),
    ],
)
@pytest.mark.trio
async def test_a_no_is_told_as_the_command_line_tells_it(
    virtual_time: JumpingClock,
    tmp_path: Path,
    method: str,
    target: str,
    body: object,
    status: int,
    code: str | None,
) -> None:
    async with open_world(MESH) as world:
        told = await ask(open_room(world, tmp_path), method, target, body)
        assert told.status == status, told.body
        if code is not None:
            assert told.json["error"]["code"] == code


@pytest.mark.trio
async def test_an_error_of_a_followed_verb_is_its_last_event(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        told = await ask(room, "POST", "/tasks", {"prompt": " "}, accept="text/event-stream")
        name, said = told.events[-1]
        assert name == "error"
        assert isinstance(said, dict)
        assert said["error"]["status"] == 400


@pytest.mark.trio
async def test_watchers_see_the_mesh_whole_and_then_what_changes(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world, trio.open_nursery() as nursery:
        room = open_room(world, tmp_path)
        asked, told = exchange("GET", "/events")
        nursery.start_soon(room.handle, asked)
        await world.until(lambda: ("ready", {}) in told.events)
        peers = [said["key"] for name, said in told.events if name == "peers"]
        assert set(peers) == {world.peer(number) for number in range(3)}
        await world.until(lambda: ("tick", {}) in told.events)
        task = world.submit(0, block("wait 5"), mode="blocks")
        await world.until(
            lambda: any(name == "tasks" and said["key"] == task for name, said in told.events)
        )
        await world.kill(2)

        def is_gone() -> bool:
            rows = [said["value"] for name, said in told.events if name == "peers"]
            return any(row and row["name"] == "node-2" and not row["routable"] for row in rows)

        await world.until(is_gone)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_program_gets_texts_that_came_along_and_its_files_come_back(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        body: dict[str, object] = {"language": "python", "code": "leave a.txt 12", "args": ["x"]}
        texts = {"files": [{"name": "in.txt", "text": "ä"}], "stdin": "s", "wants_files": True}
        done = await ask(room, "POST", "/run", {**body, **texts})
        assert (done.status, done.json["exit_code"]) == (200, 0)
        (left,) = done.json["files"]
        assert (left["name"], left["bytes"]) == ("a.txt", len(base64.b64decode(left["base64"])))
        assert "path" not in left
        assert list(tmp_path.iterdir()) == []
        for bad in ({"stdin": 5}, {"files": [{"name": "a", "path": "/etc/passwd"}]}, {"files": 5}):
            told = await ask(room, "POST", "/run", {**body, **bad})
            assert told.status == 400


@pytest.mark.trio
async def test_every_verb_that_a_node_has_is_offered(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        verbs = world.verbs(0)
        offered = {one.verb for one in VERB_ROUTES} | {"submit"}
        # `ask` is what the model routes are for.
        assert set(verbs) - offered <= {"ask"}


def test_changes_are_rows_that_are_new_other_or_gone() -> None:
    before = {("a", "1"): 1, ("a", "2"): 2, ("b", "1"): 3}
    now = {("a", "1"): 1, ("a", "2"): 5, ("c", "1"): 6}
    told = dict(changes(before, now))
    assert told == {("a", "2"): 5, ("c", "1"): 6, ("b", "1"): None}
