"""Ollama's pull and delete, on whole meshes; the peer that fetches is told what to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.http.pull_routes import KEEP_ALIVE_S
from kowalski.node.services import inference
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.base import Message
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, THINKER
from tests.node.services.rooms import PatientClock
from tests.node.services.test_placed_work import Instead

pytestmark = pytest.mark.trio

GB = 10**9


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


async def fetch(conversation: Conversation, request: Message) -> Message:
    assert isinstance(request, wire.PullAsked)
    if request.model == "nobody":
        raise RequestRefusedError("unsupported", "no such model")
    step = wire.ModelProgress(stage="downloading", detail="pulling 970a", bytes_total=2 * GB)
    await conversation.send(step)
    if request.model == "broken":
        await trio.sleep(1)
        raise RequestFailedError("backend", "the disk is full")
    await trio.sleep(KEEP_ALIVE_S * 2.5)
    await conversation.send(step.model_copy(update={"bytes_done": 2 * GB}))
    return wire.ModelReady(model=request.model, backend="ollama", held_s=25.0)


def lines_of(body: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in body.splitlines()]


async def test_a_pull_tells_its_progress_in_ollamas_lines(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, fetch, 1)
        told = await ask(open_room(world, tmp_path), "POST", "/api/pull", {"model": "qwen3:8b"})
    first, *still, last, success = lines_of(told.body)
    assert told.status == 200
    assert first == {
        "status": "pulling 970a",
        "digest": "970a",
        "total": 2 * GB,
        "completed": 0,
        "kowalski": {"name": "node-1"},
    }
    assert still == [first, first], "a line every ten seconds"
    assert (last["completed"], success) == (2 * GB, {"status": "success"})


async def test_a_pull_without_a_stream_answers_once(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, fetch, 1)
        body = {"name": "qwen3:8b", "stream": False}
        told = await ask(open_room(world, tmp_path), "POST", "/api/pull", body)
    assert (told.status, told.json) == (200, {"status": "success"})


async def test_what_goes_wrong_is_told_before_or_in_the_stream(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, fetch, 1)
        room = open_room(world, tmp_path)
        told = await ask(room, "POST", "/api/pull", {})
        assert (told.status, told.json) == (400, {"error": "model: missing"})
        told = await ask(room, "POST", "/api/pull", {"model": "nobody", "on": "node-1"})
        assert told.status >= 400
        assert "no such model" in told.json["error"]
        told = await ask(room, "POST", "/api/pull", {"model": "broken", "on": "node-1"})
        assert told.status == 200
        assert "the disk is full" in str(lines_of(told.body)[-1]["error"])


async def test_a_model_is_deleted_from_the_disk_of_a_peer(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    heard: list[wire.UnloadAsked] = []

    async def remove(_conversation: Conversation, request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        assert isinstance(request, wire.UnloadAsked)
        heard.append(request)
        return wire.ModelGone(model=request.model, backend="ollama", held_s=0.0)

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, remove, 1)
        room = open_room(world, tmp_path)
        told = await ask(room, "DELETE", "/api/delete", {"model": "m", "on": "node-1"})
        assert (told.status, told.json) == (200, {})
        assert [(one.model, one.deletes) for one in heard] == [("m", True)]
        assert (await ask(room, "DELETE", "/api/delete", {})).status == 400
