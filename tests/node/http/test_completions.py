"""Model calls over HTTP on whole meshes: streamed, retried, ended in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio

from kowalski.node.http.completions import KEEP_ALIVE_S, TIMEOUT_S_MAX
from kowalski.node.services import inference
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.http.exchanges import exchange
from tests.node.http.rooms import ask, open_room
from tests.node.services.prompts import ASKER, THINKER
from tests.node.services.test_model_calls import HALF, goes_on_with_nothing
from tests.node.services.test_placed_work import INFERENCE, Instead, best

pytestmark = pytest.mark.trio

SLOW = dataclasses.replace(THINKER, delay_per_token_s=1.0)
STUCK = dataclasses.replace(THINKER, delay_per_token_s=25.0)
CHAT = "/v1/chat/completions"


def chat(content: str = "hello there", **more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def text_of(events: list[tuple[str, object]]) -> str:
    chunks = [one for _, one in events if isinstance(one, dict)]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_an_answer_comes_whole_with_who_gave_it(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        told = await ask(open_room(world, tmp_path), "POST", CHAT, chat())
        assert told.status == 200
        assert told.json["choices"][0]["message"]["content"] == "reply to: hello there"
        assert told.headers["x-kowalski-name"] == "node-1"
        assert told.headers["x-kowalski-peer"] == world.peer(1)
        assert told.headers["x-kowalski-attempts"] == "1"


async def test_words_are_sent_as_they_come(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world([ASKER, SLOW]) as world, trio.open_nursery() as nursery:
        room = open_room(world, tmp_path)
        asked, told = exchange("POST", CHAT, chat(stream=True))
        nursery.start_soon(room.handle, asked)
        await world.until(lambda: text_of(told.events) == "reply to:")
        assert not told.is_ended
        await world.until(lambda: told.is_ended)
        assert text_of(told.events) == "reply to: hello there"
        assert told.events[-1] == ("", "[DONE]")


async def test_a_peer_that_dies_before_the_first_word_is_not_noticed(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, SLOW, SLOW]) as world, trio.open_nursery() as nursery:
        room = open_room(world, tmp_path)
        asked, told = exchange("POST", CHAT, chat(stream=True))
        first = best(world, INFERENCE)
        nursery.start_soon(room.handle, asked)
        await world.until(lambda: bool(world.places[first].calls))
        await world.kill(first)
        await world.until(lambda: told.is_ended)
        assert text_of(told.events) == "reply to: hello there"
        last = told.events[-2][1]
        assert isinstance(last, dict)
        assert last["kowalski"]["name"] == f"node-{3 - first}"


async def test_an_answer_goes_on_where_a_peer_dies_in_the_middle(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, SLOW, SLOW]) as world, trio.open_nursery() as nursery:
        room = open_room(world, tmp_path)
        asked, told = exchange("POST", CHAT, chat(stream=True))
        first = best(world, INFERENCE)
        nursery.start_soon(room.handle, asked)
        await world.until(lambda: text_of(told.events) == "reply to:")
        await world.kill(first)
        await world.until(lambda: told.is_ended)
        assert text_of(told.events) == "reply to: hello there"
        assert told.events[-1] == ("", "[DONE]")


async def test_an_answer_that_nobody_can_go_on_with_ends_in_an_error(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        first = best(world, INFERENCE)
        Instead(world, inference.PROTOCOL, HALF, first)
        Instead(world, inference.PROTOCOL, goes_on_with_nothing, 3 - first)
        told = await ask(open_room(world, tmp_path), "POST", CHAT, chat(stream=True))
        assert told.status == 200
        assert text_of(told.events) == "half of "
        last = told.events[-1][1]
        assert isinstance(last, dict)
        assert last["error"]["code"] == "cut_short"
        assert told.is_ended


async def test_who_waits_for_the_whole_answer_gets_it_from_another_peer_begun_anew(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        first = best(world, INFERENCE)
        Instead(world, inference.PROTOCOL, HALF, first)
        Instead(world, inference.PROTOCOL, goes_on_with_nothing, 3 - first)
        told = await ask(open_room(world, tmp_path), "POST", CHAT, chat())
        assert told.status == 200
        assert told.json["choices"][0]["message"]["content"] == "all anew"


async def test_a_failure_before_the_first_word_is_a_status(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        room = open_room(world, tmp_path)
        Instead(world, inference.PROTOCOL, HALF, 1)
        told = await ask(room, "POST", CHAT, chat())
        assert told.status == 502
        assert told.json["error"]["type"] == "server_error"
        too_short = chat(stream=True)
        told = await ask(room, "POST", CHAT, too_short, x_kowalski_timeout_s="0")
        assert told.status == 400
        told = await ask(room, "POST", CHAT, too_short, x_kowalski_timeout_s=f"{TIMEOUT_S_MAX + 1}")
        assert told.status == 400


async def test_patience_is_the_clients(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_world([ASKER, STUCK]) as world:
        room = open_room(world, tmp_path)
        began = trio.current_time()
        told = await ask(room, "POST", CHAT, chat(), x_kowalski_timeout_s="3")
        assert told.status == 504
        assert trio.current_time() - began < 4


async def test_a_slow_model_is_waited_for_audibly(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world([ASKER, STUCK]) as world:
        told = await ask(open_room(world, tmp_path), "POST", CHAT, chat("x", stream=True))
        assert told.body.count(b": still here") >= 25 // KEEP_ALIVE_S
        assert text_of(told.events) == "reply to: x"


async def test_a_client_that_hangs_up_stops_the_model(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    def busy(world: World) -> int:
        return world.places[1].backend.in_flight

    async with open_world([ASKER, SLOW]) as world, trio.open_nursery() as nursery:
        room = open_room(world, tmp_path)
        asked, _ = exchange("POST", CHAT, chat(stream=True))
        scope = trio.CancelScope()

        async def handle() -> None:
            with scope:
                await room.handle(asked)

        nursery.start_soon(handle)
        await world.until(lambda: busy(world) == 1)
        scope.cancel()
        await world.until(lambda: busy(world) == 0)
        assert b'outcome="cancelled"' in room.metrics.expose()


async def test_a_large_picture_travels_by_hash(virtual_time: JumpingClock, tmp_path: Path) -> None:
    seen: list[int] = []

    def tells(request: object) -> str:
        seen.extend(len(image) for image in request.images)  # type: ignore[attr-defined]
        return "seen"

    part = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, part]) as world:
        data = "iVBORw0K" + "A" * 800_000
        url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        body = {"model": "m", "messages": [{"role": "user", "content": [url]}]}
        told = await ask(open_room(world, tmp_path), "POST", CHAT, body)
        assert (told.status, seen) == (200, [600_006]), told.body
