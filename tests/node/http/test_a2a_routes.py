"""Agent2Agent over HTTP on whole meshes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node import a2a
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, LEADER, WORKER, block

pytestmark = pytest.mark.trio

MESH = (ASKER, LEADER, WORKER)


def asking(method: str, text: str = "", **params: object) -> dict[str, object]:
    if text:
        parts = [{"text": text}]
        params |= {"message": {"messageId": "1", "role": "ROLE_USER", "parts": parts}}
        params |= {"metadata": {"mode": "blocks"}}
    return {"jsonrpc": "2.0", "id": 5, "method": method, "params": params}


async def test_a_message_waits_for_its_task_and_the_task_is_there_afterwards(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        told = (await ask(room, "POST", "/a2a", asking("SendMessage", block("say 7")))).json
        task = told["result"]["task"]
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert "7" in task["artifacts"][0]["parts"][0]["text"]
        found = (await ask(room, "POST", "/a2a", asking("GetTask", id=task["id"]))).json
        assert found["result"]["id"] == task["id"]
        listed = (await ask(room, "POST", "/a2a", asking("ListTasks"))).json["result"]
        assert [one["id"] for one in listed["tasks"]] == [task["id"]]


async def test_a_stream_begins_with_the_task_and_ends_with_how_it_ended(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        body = asking("SendStreamingMessage", block("say 7"))
        told = await ask(open_room(world, tmp_path), "POST", "/a2a", body)
        results = [said["result"] for _, said in told.events]
        assert "task" in results[0]
        assert results[-2]["artifactUpdate"]["lastChunk"]
        assert results[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert all("statusUpdate" in one for one in results[1:-2])


async def test_who_does_not_wait_can_cancel(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        body = asking("SendMessage", block("wait 50"), configuration={"returnImmediately": True})
        task = (await ask(room, "POST", "/a2a", body)).json["result"]["task"]
        assert task["status"]["state"] in {"TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"}
        told = (await ask(room, "POST", "/a2a", asking("CancelTask", id=task["id"]))).json
        assert told["result"]["status"]["state"] == "TASK_STATE_CANCELED"
        told = (await ask(room, "POST", "/a2a", asking("CancelTask", id=task["id"]))).json
        assert told["result"]["status"]["state"] == "TASK_STATE_CANCELED", "it still is"


async def test_what_is_over_cannot_be_cancelled(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        told = (await ask(room, "POST", "/a2a", asking("SendMessage", block("say 7")))).json
        name = told["result"]["task"]["id"]
        told = (await ask(room, "POST", "/a2a", asking("CancelTask", id=name))).json
        assert told["error"]["code"] == a2a.NOT_CANCELABLE
        told = (await ask(room, "POST", "/a2a", asking("GetTask", id=name))).json
        assert told["result"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_the_version_is_the_cards_and_another_is_refused_by_its_code(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        (interface,) = (await ask(room, "GET", a2a.CARD_PATH)).json["supportedInterfaces"]
        for version in (interface["protocolVersion"], "1.0.3", ""):
            told = (await ask(room, "POST", "/a2a", asking("ListTasks"), a2a_version=version)).json
            assert told["result"]["tasks"] == []
        for version in ("0.3", "2.0", "nonsense"):
            told = (await ask(room, "POST", "/a2a", asking("ListTasks"), a2a_version=version)).json
            assert (told["id"], told["error"]["code"]) == (5, a2a.VERSION_NOT_SUPPORTED)
        told = (await ask(room, "POST", "/a2a?A2A-Version=0.3", asking("ListTasks"))).json
        assert told["error"]["code"] == -32009


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (asking("GetTask", id="01M83QWMJNB2EXMBE293VXKR57"), a2a.TASK_NOT_FOUND),
        (asking("SendMessage"), a2a.INVALID_PARAMS),
        (asking("nope"), a2a.UNKNOWN_METHOD),
        (asking("GetExtendedAgentCard"), a2a.UNSUPPORTED),
        (b"nope", -32700),
        ({}, a2a.INVALID_REQUEST),
    ],
)
async def test_errors_are_those_of_json_rpc(
    virtual_time: JumpingClock, tmp_path: Path, body: object, code: int
) -> None:
    async with open_world(1) as world:
        told = await ask(open_room(world, tmp_path), "POST", "/a2a", body)
        assert (told.status, told.json["error"]["code"]) == (200, code)


async def test_the_card_leads_to_the_node_by_the_name_it_was_asked_by(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        told = await ask(open_room(world, tmp_path), "GET", a2a.CARD_PATH, host="localhost:9")
        (interface,) = told.json["supportedInterfaces"]
        assert interface["url"] == "http://localhost:9/a2a"
