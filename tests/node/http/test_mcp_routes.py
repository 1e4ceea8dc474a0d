"""MCP over HTTP on whole meshes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node import mcp
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
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
