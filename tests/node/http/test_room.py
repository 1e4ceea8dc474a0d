"""The HTTP room as a whole: who may speak to it, its own pages, what it counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema_rs
import pytest
import trio

from kowalski.node.http.exchange import stopping
from kowalski.node.http.tokens import TokenFile
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.exchanges import exchange
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block

pytestmark = pytest.mark.trio

AFAR = "192.168.1.20"
Json = dict[str, object]


async def test_from_afar_nothing_is_told_without_the_token(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path, host="0.0.0.0")
        token = TokenFile(tmp_path / "http_token").ensure()
        paths = ["/", "/peers", "/metrics", "/healthz", "/v1/models", "/nowhere", "/docs"]
        for path in paths:
            assert (await ask(room, "GET", path, client=AFAR)).status == 401
        bearer = f"Bearer {token}"
        assert (await ask(room, "GET", "/peers", client=AFAR, authorization=bearer)).status == 200
        new = TokenFile(tmp_path / "http_token").rotate()
        assert (await ask(room, "GET", "/peers", client=AFAR, authorization=bearer)).status == 401
        assert (await ask(room, "GET", "/peers", client=AFAR, x_api_key=new)).status == 200


async def test_a_browser_that_shows_the_token_once_keeps_it_in_a_cookie(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path, host="0.0.0.0")
        token = TokenFile(tmp_path / "http_token").ensure()
        told = await ask(room, "GET", f"/?token={token}", client=AFAR)
        assert (told.status, told.headers["location"]) == (303, "/")
        cookie, *attributes = told.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
        assert (await ask(room, "GET", "/", client=AFAR, cookie=cookie)).status == 200
        assert (await ask(room, "GET", "/?token=wrong-wrong-wrong-w", client=AFAR)).status == 401


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/docs", "/docs"),
        ("//evil.example/docs", "/docs"),
        ("/%2Fevil.example", "/evil.example"),
        ("/%5Cevil.example", "/%5Cevil.example"),
        ("/%09/evil.example", "/%09/evil.example"),
        ("http://evil.example/docs", "/docs"),
    ],
)
async def test_who_shows_the_token_is_led_to_this_node_whatever_the_path_says(
    path: str, place: str, virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        told = await ask(room, "GET", f"{path}?token=anything-at-all-here")
        assert (told.status, told.headers["location"]) == (303, place)
        assert "set-cookie" not in told.headers  # that would put out the one which holds


async def test_the_head_of_everything_that_can_be_got_is_told_without_it(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        paths = ["/", "/healthz", "/docs", "/openapi.json", "/v1/models", "/api/version", "/events"]
        for path in [*paths, "/.well-known/agent-card.json", "/peers", "/nowhere", "/pages/none"]:
            told = await ask(room, "HEAD", path)
            assert (told.body, told.is_ended) == (b"", True), path
            if path != "/events":
                whole = await ask(room, "GET", path)
                assert told.status == whole.status, path
                assert told.headers["content-length"] == str(len(whole.body)), path


async def test_refusals_are_in_the_language_of_the_path(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        told = await ask(room, "POST", "/v1/messages", {}, host="evil.example")
        assert told.json["error"]["type"] == "permission_error"
        told = await ask(room, "POST", "/api/chat", {}, host="evil.example")
        assert isinstance(told.json["error"], str)
        told = await ask(room, "GET", "/nowhere")
        assert (told.status, told.json["error"]["code"]) == (404, "not_found")
        told = await ask(room, "DELETE", "/peers")
        assert (told.status, told.headers["allow"]) == (405, "GET, HEAD")


async def test_a_page_that_the_owner_named_may_read_answers(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    origin = "https://chat.example"
    async with open_world(1) as world:
        room = open_room(world, tmp_path, origins=frozenset({origin}))
        told = await ask(room, "OPTIONS", "/v1/chat/completions", origin=origin)
        assert (told.status, told.body) == (204, b"")
        told = await ask(room, "GET", "/peers", origin=origin)
        assert told.headers["access-control-allow-origin"] == origin


async def test_a_page_that_the_owner_named_may_read_why_it_is_refused(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    origin = "https://chat.example"
    async with open_world(1) as world:
        room = open_room(world, tmp_path, host="0.0.0.0", origins=frozenset({origin}))
        told = await ask(room, "GET", "/peers", client=AFAR, origin=origin)
        assert (told.status, told.headers["access-control-allow-origin"]) == (401, origin)
        told = await ask(room, "GET", "/peers", client=AFAR, origin="https://evil.example")
        assert told.status == 403
        assert "access-control-allow-origin" not in told.headers


async def test_health_and_readiness(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world(2) as world:
        room = open_room(world, tmp_path, 1)
        assert (await ask(room, "GET", "/healthz")).json == {"status": "ok"}
        assert (await ask(room, "GET", "/readyz")).json == {"status": "ready", "peers": 2}
        world[0].mesh.trust.revoke(world.peer(1), "lost")
        await world.until(lambda: world[1].mesh.trust.is_revoked)
        assert (await ask(room, "GET", "/readyz")).status == 503
        assert (await ask(room, "GET", "/healthz")).status == 200


async def test_the_interface_is_told_to_people_and_programs(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        told = (await ask(room, "GET", "/openapi.json")).json
        assert told["openapi"].startswith("3.1")
        assert "post" in told["paths"]["/v1/chat/completions"]
        assert "get" in told["paths"]["/tasks/{task}"]
        page = await ask(room, "GET", "/docs")
        for path in told["paths"]:
            assert path.replace("{model}", "{model+}") in page.body.decode()


CHAT = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}


@pytest.mark.parametrize(
    ("path", "fits", "does_not"),
    [
        ("/v1/chat/completions", {**CHAT, "stop": ["."]}, {"messages": []}),
        ("/v1/completions", {"prompt": "once"}, {"prompt": 5}),
        ("/v1/embeddings", {"input": ["a", "b"]}, {}),
        ("/v1/responses", {"input": [{"role": "user", "content": "hi"}]}, {"input": []}),
        ("/v1/messages", {**CHAT, "max_tokens": 5}, CHAT),
        ("/v1/messages/count_tokens", CHAT, {"messages": [{"role": "nobody", "content": ""}]}),
        ("/api/chat", {"messages": [{"role": "user"}]}, {"messages": [{"role": "nobody"}]}),
        ("/api/generate", {"prompt": "once", "options": {"seed": 1}}, {"options": {"seed": "a"}}),
        ("/api/embed", {"input": "a"}, {"input": 5}),
        ("/api/embeddings", {"prompt": "a"}, {}),
        ("/api/show", {"model": "a"}, {}),
    ],
)
async def test_what_clients_of_models_may_say_is_told_to_programs(
    virtual_time: JumpingClock, tmp_path: Path, path: str, fits: Json, does_not: Json
) -> None:
    async with open_world(1) as world:
        told = (await ask(open_room(world, tmp_path), "GET", "/openapi.json")).json
    operation = told["paths"][path]["post"]
    assert operation["externalDocs"]["url"].startswith("https://")
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    is_valid = jsonschema_rs.validator_for({**schema, "components": told["components"]}).is_valid
    assert is_valid(fits)
    assert not is_valid(does_not)


async def test_what_is_answered_is_counted_by_route(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        for path in ("/tasks/01M83QWMJNB2EXMBE293VXKR57", "/nowhere/1", "/nowhere/2", "/healthz"):
            await ask(room, "GET", path)
        metrics = (await ask(room, "GET", "/metrics")).body.decode()
        counted = 'kowalski_http_requests_total{method="GET",route="%s",status="%d"} %d.0'
        assert counted % ("/tasks/{task}", 404, 1) in metrics
        assert counted % ("none", 404, 2) in metrics
        assert counted % ("/healthz", 200, 1) in metrics
        assert 'kowalski_http_request_seconds_count{route="/healthz"} 1.0' in metrics


async def test_the_openapi_document_is_what_its_specification_says(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        told = json.loads((await ask(open_room(world, tmp_path), "GET", "/openapi.json")).body)
        identifiers = [
            operation["operationId"]
            for path in told["paths"].values()
            for operation in path.values()
        ]
        assert len(identifiers) == len(set(identifiers))
        for path, operations in told["paths"].items():
            for operation in operations.values():
                parameters = operation.get("parameters", [])
                named = {one["name"] for one in parameters if one["in"] == "path"}
                assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


# --- last words ---------------------------------------------------------------------------------

SLOW = dataclasses.replace(THINKER, delay_per_token_s=60.0)
SAID = [{"role": "user", "content": "hello there"}]
WAITING = {"role": "ROLE_USER", "messageId": "1", "parts": [{"text": block("wait 500")}]}


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        (
            "/v1/chat/completions",
            {"messages": SAID, "stream": True},
            b'data: {"error":{"message":"this node is stopping","type":"server_error",',
        ),
        (
            "/v1/messages",
            {"messages": SAID, "stream": True, "max_tokens": 9},
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",',
        ),
        (
            "/v1/responses",
            {"input": "hello there", "stream": True},
            b'"error":{"code":"stopping","message":"this node is stopping"}',
        ),
        ("/api/chat", {"messages": SAID}, b'{"error":"this node is stopping"}'),
        ("/api/generate", {"prompt": "hello there"}, b'{"error":"this node is stopping"}'),
        (
            "/mcp",
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {
                    "name": "ask",
                    "arguments": {"prompt": "hello there"},
                    "_meta": {"progressToken": 1},
                },
            },
            b'"text":"stopping: this node is stopping"',
        ),
        (
            "/a2a",
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "SendStreamingMessage",
                "params": {"message": WAITING, "metadata": {"mode": "blocks"}},
            },
            b'"error":{"code":-32603,"message":"this node is stopping"}',
        ),
        ("/events", None, b'event: error\ndata: {"error":{"message":"this node is stopping",'),
    ],
)
async def test_no_stream_ends_silently_when_the_node_stops(
    path: str, body: object, last: bytes, virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, SLOW, LEADER, WORKER]) as world, trio.open_nursery() as nursery:
        room = open_room(world, tmp_path)
        asked, told = exchange("POST" if body else "GET", path, body)
        nursery.start_soon(room.handle, asked)
        await world.until(lambda: asked.has_begun)
        await trio.sleep(2)
        assert not told.is_ended
        asked.stop()
        with trio.fail_after(1):
            await world.until(lambda: told.is_ended)
        assert last in told.body[-900:], told.body[-900:]


async def test_a_refusal_of_a_node_that_stops_is_in_the_language_of_the_path(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, SLOW]) as world:
        room = open_room(world, tmp_path)
        asked, told = exchange("POST", "/api/chat", {"messages": SAID, "stream": False})
        with trio.move_on_after(1):
            await room.handle(asked)
        assert asked.tell is not None
        await asked.tell(asked, stopping())
        assert (told.status, told.json) == (503, {"error": "this node is stopping"})
