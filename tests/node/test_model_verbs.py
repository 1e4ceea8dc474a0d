"""The verbs about models, on whole nodes under virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.services import inference
from kowalski.protocol.errors import ConfigError, KowalskiError
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.base import Message
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, THINKER
from tests.node.services.rooms import PatientClock
from tests.node.services.test_placed_work import Instead
from tests.node.test_verbs import Emitted, ask

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


async def test_ask_passes_on_all_that_was_asked(virtual_time: JumpingClock, tmp_path: Path) -> None:
    small, large = tmp_path / "a.png", tmp_path / "b.png"
    small.write_bytes(b"\x89PNG small")
    large.write_bytes(b"\x89PNG" + bytes(600_000))
    heard: list[wire.CompletionAsked] = []

    async def answer(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, wire.CompletionAsked)
        heard.append(request)
        await conversation.send(wire.CompletionDelta(thinking="hm"))
        await conversation.send(wire.CompletionDelta(text="yes"))
        usage = wire.Usage(prompt_tokens=1, completion_tokens=2)
        return wire.CompletionDone(model="m", finish_reason="stop", usage=usage, held_s=0.0)

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, answer, 1)
        emit = Emitted()
        reply = await ask(
            world,
            "ask",
            emit,
            prompt="what?",
            stop=["x"],
            seed=7,
            top_p=0.5,
            json_schema="{}",
            thinking="low",
            images=[str(small), str(large)],
        )
    (request,) = heard
    assert request.sampling == wire.Sampling(seed=7, stop=("x",), top_p=0.5)
    assert (request.json_schema, request.thinking) == ("{}", "low")
    assert request.messages[-1].images == (0, 1)
    assert request.images[0].data == b"\x89PNG small"
    assert request.images[1].content is not None
    assert request.images[1].content.bytes_total == 600_004
    assert (reply["text"], reply["thinking"]) == ("yes", "hm")
    assert [event["kind"] for event in emit.events] == ["thinking", "delta"]


async def test_an_image_that_is_not_there_is_named(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        with pytest.raises(ConfigError, match=r"image /no/such.png: No such file"):
            await ask(world, "ask", prompt="what?", images=["/no/such.png"])


async def test_embed_gives_lists_of_numbers(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        reply = await ask(world, "embed", texts=["ab", "b"], model="m")
        embeddings = reply["embeddings"]
        assert isinstance(embeddings, list)
        assert [vector[:2] for vector in embeddings] == [[1.0, 1.0], [0.0, 1.0]]
        assert (reply["model"], reply["name"]) == ("m", "node-1")
        with pytest.raises(ConfigError, match="bytes of text at once"):
            await ask(world, "embed", texts=["x" * 400_000], model="m")


async def test_models_lists_what_each_peer_has(virtual_time: JumpingClock) -> None:
    async with open_world([THINKER, THINKER, ASKER]) as world:
        reply = await ask(world, "models")
        rows = reply["models"]
        assert isinstance(rows, list)
        assert [(row["name"], row["peer_name"], row["state"]) for row in rows] == [
            ("m", "node-0", "warm"),
            ("m", "node-1", "warm"),
        ]
        assert reply["silent"] == []
        assert (await ask(world, "models", query="other"))["models"] == []


async def test_what_could_be_loaded_is_told_when_asked_for(virtual_time: JumpingClock) -> None:
    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        listed = wire.Listed(name="large", backend="exo", state="loadable")
        return wire.CatalogueTold(models=(listed,), held_s=0.0, can_pull=True)

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, answer, 1)
        assert (await ask(world, "models"))["models"] == []
        reply = await ask(world, "models", loadable=True)
        assert [row["name"] for row in reply["models"]] == ["large"]  # type: ignore[index, union-attr, attr-defined] rows
        assert reply["can_pull"] == ["node-1"]


@pytest.mark.parametrize(
    ("verb", "kind"),
    [("pull", wire.PullAsked), ("load", wire.LoadAsked), ("unload", wire.UnloadAsked)],
)
async def test_a_change_goes_to_the_peer_that_is_named_and_tells_how_far_it_is(
    virtual_time: JumpingClock, verb: str, kind: type[Message]
) -> None:
    async def answer(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, kind)
        if verb == "unload":
            return wire.ModelGone(model="x", backend="ollama", held_s=0.0)
        await conversation.send(wire.ModelProgress(stage="downloading", bytes_done=1))
        return wire.ModelReady(model="x", backend="ollama", detail="whole", held_s=0.0)

    async with open_world([ASKER, THINKER, THINKER]) as world:
        named = Instead(world, inference.PROTOCOL, answer, 2)
        emit = Emitted()
        reply = await ask(world, verb, emit, model="x", on="node-2")
        assert named.asked == [2]
        assert (reply["model"], reply["name"]) == ("x", "node-2")
        assert [event["stage"] for event in emit.of("progress")] == (
            [] if verb == "unload" else ["downloading"]
        )
        with pytest.raises(ConfigError, match="no peer is called nobody"):
            await ask(world, verb, model="x", on="nobody")


async def test_a_preview_says_which_way_and_why(virtual_time: JumpingClock) -> None:
    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        way = wire.Preview(sharding="pipeline", link="ring", devices=2, is_chosen=True)
        return wire.Previews(model="x", options=(way,), explanation="because", held_s=0.0)

    async with open_world([ASKER, ASKER]) as world:
        with pytest.raises(KowalskiError, match="no_peer"):
            await ask(world, "preview", model="x")
    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, answer, 1)
        reply = await ask(world, "preview", model="x")
        assert (reply["explanation"], reply["name"]) == ("because", "node-1")
        assert [row["is_chosen"] for row in reply["options"]] == [True]  # type: ignore[index, union-attr, attr-defined] rows
