"""Who is asked about models, in which order, and what is heard of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from kowalski.mesh.conversation import Answer, Conversation
from kowalski.node.services import inference
from kowalski.node.services.model_work import ModelWork, order
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import (
    CatalogueAsked,
    CatalogueTold,
    ModelProgress,
    ModelReady,
    PreviewsAsked,
    PullAsked,
    UnloadAsked,
)
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, THINKER
from tests.node.services.test_placed_work import Instead, raising

pytestmark = pytest.mark.trio

PULL = PullAsked(model="m2", remaining_s=30.0)


async def fetches(conversation: Conversation, request: Message) -> Message:
    assert isinstance(request, PullAsked)
    await conversation.send(ModelProgress(stage="downloading", bytes_done=1, bytes_total=2))
    return ModelReady(model=request.model, backend="ollama", held_s=1.0)


def refuses(reason: str, detail: str = "") -> Answer:
    return raising(RequestRefusedError(reason, detail))


def in_order(world: World) -> list[int]:
    return [world.number_of(one.peer) for one in order(world[0].mesh.facts())]


async def test_every_peer_tells_what_it_has_and_who_is_silent_is_named(
    virtual_time: JumpingClock,
) -> None:
    async def silent(_conversation: Conversation, _request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with open_world([THINKER, THINKER, THINKER, ASKER]) as world:
        Instead(world, inference.PROTOCOL, silent, 1)
        told = await ModelWork(world[0].mesh).tell()
        by_number = {world.number_of(one.peer): one for one in told}
        assert set(by_number) == {0, 1, 2}
        models = by_number[2].models
        assert models is not None
        assert [one.name for one in models.models] == ["m"]
        assert by_number[1].models is None
        assert "no answer" in by_number[1].why_not


async def test_this_device_is_asked_first_and_who_refuses_is_passed_over(
    virtual_time: JumpingClock,
) -> None:
    heard: list[tuple[str, ModelProgress]] = []
    async with open_world([THINKER, THINKER, THINKER]) as world:
        first, second, third = in_order(world)
        assert first == 0
        no = Instead(world, inference.PROTOCOL, refuses("not_allowed", "not you"), second)
        yes = Instead(world, inference.PROTOCOL, fetches, third)
        done = await ModelWork(world[0].mesh).change(
            PULL, on=None, on_progress=lambda name, step: heard.append((name, step))
        )
        assert (no.asked, yes.asked) == ([second], [third])
        assert (done.name, done.reply.model) == (f"node-{third}", "m2")
        assert [(name, step.stage) for name, step in heard] == [(f"node-{third}", "downloading")]


async def test_all_that_refuse_are_named(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, refuses("not_allowed", "not you"), 1)
        with pytest.raises(RequestRefusedError, match="no peer fetches it: node-1: not you") as no:
            await ModelWork(world[0].mesh).change(PULL, on=None, on_progress=ignore)
        assert no.value.reason == "no_peer"
    async with open_world([ASKER, ASKER]) as world:
        with pytest.raises(RequestRefusedError, match="no peer fetches it: no peer runs models"):
            await ModelWork(world[0].mesh).change(PULL, on=None, on_progress=ignore)


def ignore(_name: str, _step: ModelProgress) -> None:
    pass


async def test_one_that_is_named_is_asked_alone(virtual_time: JumpingClock) -> None:
    async with open_world([THINKER, THINKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, refuses("not_allowed", "not you"), 1)
        yes = Instead(world, inference.PROTOCOL, fetches, 2)
        with pytest.raises(RequestRefusedError, match=r"^not_allowed: not you$"):
            await ModelWork(world[0].mesh).change(PULL, on=world[1].mesh.me, on_progress=ignore)
        assert yes.asked == []


@pytest.mark.parametrize(
    "error", [RequestFailedError("backend", "it died"), RequestRefusedError("busy", "at it")]
)
async def test_what_went_wrong_is_not_tried_elsewhere(
    virtual_time: JumpingClock, error: Exception
) -> None:
    """A model is fetched once, and whoever asked sees why not."""
    async with open_world([ASKER, THINKER, THINKER]) as world:
        failing = Instead(world, inference.PROTOCOL, raising(error), 1, 2)
        with pytest.raises(type(error)):
            await ModelWork(world[0].mesh).change(PULL, on=None, on_progress=ignore)
        assert len(failing.asked) == 1


async def test_patience_ends(virtual_time: JumpingClock) -> None:
    async def slow(_conversation: Conversation, _request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, slow, 1)
        with pytest.raises(RequestFailedError, match="timeout: not done within 30 s"):
            await ModelWork(world[0].mesh).change(PULL, on=None, on_progress=ignore)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (UnloadAsked(model="x", remaining_s=5.0), "no peer unloads it"),
        (PreviewsAsked(model="x", remaining_s=5.0), "no peer splits it"),
    ],
)
async def test_nobody_for_it_is_said_in_words(
    virtual_time: JumpingClock,
    asked: Any,  # noqa: ANN401 one of them
    words: str,
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        work = ModelWork(world[0].mesh)
        with pytest.raises(RequestRefusedError, match=words):
            await (
                work.preview(asked, on=None)
                if isinstance(asked, PreviewsAsked)
                else work.change(asked, on=None, on_progress=ignore)
            )


async def test_a_question_of_any_length_is_cut(virtual_time: JumpingClock) -> None:
    heard: list[str] = []

    async def answer(_conversation: Conversation, request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        assert isinstance(request, CatalogueAsked)
        heard.append(request.query)
        return CatalogueTold(models=(), held_s=0.0)

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, answer, 1)
        await ModelWork(world[0].mesh).tell("x" * 9999)
    assert heard == ["x" * 256]
