"""The routes that clients of model servers know, on whole meshes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio

from kowalski.node.http.mesh_models import mesh_models
from kowalski.protocol.errors import RequestRefusedError
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, THINKER

pytestmark = pytest.mark.trio

OTHER = dataclasses.replace(THINKER, models=("llama3.2:3b", "m"))
USER = {"role": "user", "content": "hello"}


async def test_the_models_of_the_mesh_are_listed_in_every_language(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER, OTHER]) as world:
        room = open_room(world, tmp_path)
        told = (await ask(room, "GET", "/v1/models")).json
        rows = {row["id"]: row["kowalski"]["peers"] for row in told["data"]}
        assert rows == {"m": ["node-1", "node-2"], "llama3.2:3b": ["node-2"]}
        told = (await ask(room, "GET", "/v1/models", anthropic_version="2023-06-01")).json
        assert {row["type"] for row in told["data"]} == {"model"}
        told = (await ask(room, "GET", "/api/tags")).json
        assert {row["name"] for row in told["models"]} == {"m:latest", "llama3.2:3b"}
        assert (await ask(room, "GET", "/v1/models/llama3.2%3A3b")).json["id"] == "llama3.2:3b"
        shown = (await ask(room, "POST", "/api/show", {"model": "llama3.2:3b"})).json
        assert shown["details"]["parameter_size"] == "3B"
        loaded = (await ask(room, "GET", "/api/ps")).json["models"]
        assert {row["name"] for row in loaded} == {"m:latest", "llama3.2:3b"}


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/chat/completions", {"messages": [USER]}, '"code":"model_not_found"'),
        ("/v1/completions", {"prompt": "x"}, '"code":"model_not_found"'),
        ("/v1/embeddings", {"input": "x"}, '"code":"model_not_found"'),
        ("/v1/messages", {"messages": [USER], "max_tokens": 5}, '"type":"not_found_error"'),
        ("/api/chat", {"messages": [USER]}, '{"error":"no peer has the model'),
        ("/api/generate", {"prompt": "x"}, '{"error":"no peer has the model'),
        ("/api/embed", {"input": "x"}, '{"error":"no peer has the model'),
        ("/api/show", {}, '{"error":"no peer has the model'),
    ],
)
async def test_a_model_that_nobody_has_is_told_in_the_clients_language(
    virtual_time: JumpingClock, tmp_path: Path, path: str, body: dict[str, object], word: str
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        told = await ask(open_room(world, tmp_path), "POST", path, {"model": "nope", **body})
        assert told.status == 404
        assert word in told.body.decode()
        assert "there is: m" in told.body.decode()


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/chat/completions", {"messages": [USER]}, '"code":"model_gone"'),
        ("/v1/embeddings", {"input": "x"}, '"code":"model_gone"'),
        ("/v1/messages", {"messages": [USER], "max_tokens": 5}, '"type":"overloaded_error"'),
        ("/api/generate", {"prompt": "x"}, '{"error":"the model '),
        ("/api/show", {}, '{"error":"the model '),
    ],
)
async def test_a_model_whose_peer_has_just_died_may_be_asked_for_again(
    virtual_time: JumpingClock, tmp_path: Path, path: str, body: dict[str, object], word: str
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        await world.kill(1)
        await world.until(lambda: not world[0].mesh.is_routable(world.peer(1)))
        told = await ask(room, "POST", path, {"model": "m", **body})
        assert (told.status, told.headers["retry-after"]) == (503, "5")
        assert word in told.body.decode()
        assert "node-1 cannot be asked" in told.body.decode()
        told = await ask(room, "POST", path, {"model": "another", **body})
        assert told.status == 404
        await trio.sleep(3600)
        told = await ask(room, "POST", path, {"model": "m", **body})
        assert told.status == 404, "it is not coming back"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_model_that_its_server_no_longer_lists_may_be_asked_for_again(
    virtual_time: JumpingClock, tmp_path: Path, path: str
) -> None:
    body = {"model": "m", "messages": [USER], "input": "x"}
    async with open_world([ASKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        assert (await ask(room, "POST", path, body)).status == 200
        world.places[1].backend.models = ()
        hands = world.places[1].hands
        assert hands is not None
        await hands.catalogue.refresh()
        await world.until(lambda: not mesh_models(world[0].mesh.facts()))
        told = await ask(room, "POST", path, body)
        assert (told.status, told.headers["retry-after"]) == (503, "5")
        assert (await ask(room, "POST", path, {**body, "model": "other"})).status == 404


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/embeddings"]
)
@pytest.mark.parametrize("body", [b"nope", b'{"model":"m"', {"model": 7}, {"messages": "x"}])
async def test_a_bad_request_is_the_clients(
    virtual_time: JumpingClock, tmp_path: Path, path: str, body: object
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        told = await ask(open_room(world, tmp_path), "POST", path, body)
        assert told.status == 400
        assert "error" in told.json


async def test_each_language_is_answered_in_its_own(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        told = await ask(
            room, "POST", "/v1/messages", {"model": "m", "messages": [USER], "max_tokens": 9}
        )
        assert told.json["content"] == [{"type": "text", "text": "reply to: hello"}]
        told = await ask(room, "POST", "/v1/responses", {"model": "m", "input": "hello"})
        assert told.json["output"][0]["content"][0]["text"] == "reply to: hello"
        body = {"model": "m", "input": "hello", "stream": True}
        told = await ask(room, "POST", "/v1/responses", body)
        assert told.events[-1][0] == "response.completed"
        told = await ask(room, "POST", "/v1/completions", {"model": "m", "prompt": "hello"})
        assert told.json["object"] == "text_completion"
        body = {"model": "m", "messages": [USER], "stream": False}
        told = await ask(room, "POST", "/api/chat", body)
        assert told.json["message"]["content"] == "reply to: hello"
        told = await ask(room, "POST", "/api/chat", {"model": "m", "messages": [USER]})
        assert told.headers["content-type"] == "application/x-ndjson"
        assert told.body.splitlines()[-1].endswith(b"}")
        told = await ask(room, "POST", "/api/generate", {"model": "m"})
        assert told.json["done_reason"] == "load"
        told = await ask(room, "POST", "/v1/messages/count_tokens", {"messages": [USER]})
        assert told.json["input_tokens"] >= 1
        assert (await ask(room, "GET", "/api/version")).json["version"]


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
async def test_a_model_is_taken_out_of_memory_wherever_it_is(
    virtual_time: JumpingClock, tmp_path: Path, path: str
) -> None:
    asked: list[dict[str, object]] = []

    async def unload(request: dict[str, object], _emit: object) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        asked.append(request)
        if request["on"] == "node-1":
            raise RequestRefusedError("unsupported", "vllm unloads no models")
        return {}

    async with open_world([ASKER, THINKER, OTHER]) as world:
        room = open_room(world, tmp_path, verbs={"unload": unload})
        body = {"model": "m:latest", "keep_alive": 0}
        told = (await ask(room, "POST", path, body)).json
        assert (told["done"], told["done_reason"]) == (True, "unload")
        assert asked == [{"model": "m", "on": "node-1"}, {"model": "m", "on": "node-2"}]
        world.halt(2)
        await world.until(lambda: not world[0].mesh.is_routable(world.peer(2)))
        told = await ask(room, "POST", path, {**body, "keep_alive": "0s"})
        assert (told.status, told.json) == (400, {"error": "vllm unloads no models"})


async def test_texts_are_embedded(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world([ASKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        body = {"model": "m", "input": ["ab", "ba", "zz"], "dimensions": 26}
        told = (await ask(room, "POST", "/v1/embeddings", body)).json
        one, same, other = (row["embedding"] for row in told["data"])
        assert one == same != other
        assert len(one) == 26
        told = (await ask(room, "POST", "/api/embed", {"model": "m", "input": "ab"})).json
        assert len(told["embeddings"]) == 1
        told = (await ask(room, "POST", "/api/embeddings", {"model": "m", "prompt": "ab"})).json
        assert told["embedding"][0] == 1.0


async def test_any_model_will_do_where_none_is_named(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        told = await ask(
            open_room(world, tmp_path), "POST", "/v1/chat/completions", {"messages": [USER]}
        )
        assert told.json["model"] == "m"
