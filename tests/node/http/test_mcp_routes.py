"""MCP over HTTP on whole meshes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski.node import mcp
from kowalski.node.http.room import HttpRoom
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.exchanges import exchange
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, LEADER, WORKER, block

pytestmark = pytest.mark.trio

MESH = (ASKER, LEADER, WORKER)


def call(tool: str, meta: object = None, **arguments: object) -> dict[str, object]:
    params: dict[str, object] = {"name": tool, "arguments": arguments}
    if meta is not None:
        params["_meta"] = {"progressToken": meta}
    return {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params}


async def test_a_tool_is_called(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(MESH) as world:
        told = await ask(
            open_room(world, tmp_path), "POST", "/mcp", call("run", language="python", code="say 7")
        )
        assert told.json["id"] == 9
        result = told.json["result"]
        assert isinstance(result, dict)
        assert result["content"] == [{"type": "text", "text": "7"}]
        assert not result["isError"]


async def test_who_wants_to_hear_of_the_way_does(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        context = [{"name": "a.txt", "text": "x"}]
        body = call("submit", "t", prompt=block("say 7"), mode="blocks", context=context)
        told = await ask(open_room(world, tmp_path), "POST", "/mcp", body)
        messages = [said for _, said in told.events]
        methods = [one.get("method") for one in messages if isinstance(one, dict)]
        assert methods[:-1] == ["notifications/progress"] * (len(methods) - 1)
        assert len(methods) > 2
        last = messages[-1]
        assert isinstance(last, dict)
        assert "7" in last["result"]["content"][0]["text"]


async def test_a_no_of_the_mesh_is_the_tools_result(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        for body in (call("ask", prompt="x"), call("run", language="cobol", code="x")):
            told = await ask(room, "POST", "/mcp", body)
            result = told.json["result"]
            assert isinstance(result, dict)
            assert result["isError"]


async def test_messages_that_want_no_answer_get_none(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        told = await ask(room, "POST", "/mcp", body)
        assert (told.status, told.body) == (202, b"")
        assert (await ask(room, "GET", "/mcp")).status == 405
        assert (await ask(room, "POST", "/mcp", b"nope")).status == 400
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert (await ask(room, "POST", "/mcp", ping)).status == 200
        told = await ask(room, "POST", "/mcp", ping, mcp_protocol_version="2031-01-01")
        assert told.status == 400
        newest = mcp.VERSIONS[0]
        assert (await ask(room, "POST", "/mcp", ping, mcp_protocol_version=newest)).status == 200


# --- sessions -----------------------------------------------------------------------------------

BEGIN = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def cancelling(number: object) -> dict[str, object]:
    params = {"requestId": number, "reason": "changed my mind"}
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}


async def begun(room: HttpRoom) -> str:
    told = await ask(room, "POST", "/mcp", BEGIN)
    assert told.json["result"]["serverInfo"]["name"] == "kowalski-node"
    return told.headers["mcp-session-id"]


async def test_a_session_is_given_checked_and_ended(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        one, other = await begun(room), await begun(room)
        assert one != other
        assert (await ask(room, "POST", "/mcp", PING, mcp_session_id=one)).status == 200
        assert (await ask(room, "DELETE", "/mcp", mcp_session_id=one)).status == 204
        told = await ask(room, "POST", "/mcp", PING, mcp_session_id=one)
        assert (told.status, "initialize" in told.json["error"]["message"]) == (404, True)
        assert (await ask(room, "DELETE", "/mcp", mcp_session_id=one)).status == 404
        assert (await ask(room, "DELETE", "/mcp")).status == 400
        assert (await ask(room, "POST", "/mcp", PING, mcp_session_id=other)).status == 200
        assert (await ask(room, "POST", "/mcp", BEGIN, mcp_session_id=one)).status == 200
        assert (await ask(room, "POST", "/mcp", PING)).status == 200, "who needs none has none"


@pytest.mark.parametrize("progress", [None, "t"])
async def test_a_call_is_cancelled_by_its_client_and_by_no_other(
    progress: object, virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        mine, other = await begun(room), await begun(room)
        over = trio.Event()
        body = call("submit", progress, prompt=block("wait"), mode="blocks")
        asked, told = exchange("POST", "/mcp", body, mcp_session_id=mine)

        async def submit() -> None:
            await room.handle(asked)
            over.set()

        def states() -> list[str]:
            return [str(task.state) for task in world[0].submitter.tasks]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            await world.until(lambda: states() == ["running"])
            for session, number in ((other, 9), (mine, 8), (mine, "9"), (mine, 9)):
                assert not over.is_set()
                body = cancelling(number)
                said = await ask(room, "POST", "/mcp", body, mcp_session_id=session)
                assert said.status == 202
            await over.wait()
        assert (told.status, told.is_ended) == (200 if progress else 202, True)
        assert b'"result"' not in told.body
        await world.until(lambda: states() == ["cancelled"])


async def test_the_end_of_a_session_is_that_of_its_calls(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(MESH) as world:
        room = open_room(world, tmp_path)
        session = await begun(room)
        body = call("run", language="python", code="wait")
        asked, told = exchange("POST", "/mcp", body, mcp_session_id=session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.handle, asked)
            await world.until(lambda: bool(world.cells))
            assert (await ask(room, "DELETE", "/mcp", mcp_session_id=session)).status == 204
        assert (told.status, told.body) == (202, b"")
