"""A model that nobody has, and a peer whose owner lets it be fetched for whoever asks for it."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.backends.seam import ModelInfo
from kowalski.node.services import inference
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionDelta,
    ModelProgress,
    ModelReady,
    PullAsked,
)
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, THINKER
from tests.node.services.rooms import PatientClock
from tests.node.services.test_placed_work import done, prompt

pytestmark = pytest.mark.trio

FETCHING_S = 4.0


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


class Fetching:
    """A peer that fetches any model in four seconds, one wish at a time."""

    def __init__(self, world: World, number: int) -> None:
        self.pulls: list[PullAsked] = []
        self._place = world.places[number]
        self._is_busy = False
        world[number].mesh.serve(inference.PROTOCOL, self._answer)

    async def _answer(self, conversation: Conversation, request: Message) -> Message:
        if isinstance(request, CompletionAsked):
            await conversation.send(CompletionDelta(text=f"this is {request.model}"))
            return done()
        assert isinstance(request, PullAsked)
        self.pulls.append(request)
        if self._is_busy:
            raise RequestRefusedError("busy", "is being fetched", 1.0)
        self._is_busy = True
        await conversation.send(ModelProgress(stage="downloading"))
        await trio.sleep(FETCHING_S)
        backend, hands = self._place.backend, self._place.hands
        assert hands is not None
        backend.models = (*backend.models, ModelInfo(request.model))
        await hands.catalogue.refresh()
        self._is_busy = False
        return ModelReady(model=request.model, backend="ollama", held_s=FETCHING_S)


async def test_a_model_that_nobody_has_is_fetched_by_who_may_and_then_answers(
    virtual_time: JumpingClock,
) -> None:
    notes: list[str] = []
    async with open_world([ASKER, THINKER]) as world:
        peer = Fetching(world, 1)
        reply = await world[0].work.complete(prompt(model="qwen3:8b"), on_restart=notes.append)
        assert reply.text == "this is qwen3:8b"
        assert notes == ["no peer has qwen3:8b; node-1 fetches it"]
        assert [pull.is_on_demand for pull in peer.pulls] == [True]


async def test_two_who_want_it_have_it_fetched_once(virtual_time: JumpingClock) -> None:
    replies: list[str] = []
    async with open_world([ASKER, THINKER]) as world:
        peer = Fetching(world, 1)

        async def ask() -> None:
            replies.append((await world[0].work.complete(prompt(model="qwen3:8b"))).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert replies == ["this is qwen3:8b"] * 2
        assert peer.pulls[0].model == "qwen3:8b"


async def test_who_has_no_time_for_it_hears_that_nobody_has_it(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        Fetching(world, 1)
        before = trio.current_time()
        with pytest.raises(RequestRefusedError, match="no_peer: no peer has model qwen3:8b"):
            await world[0].work.complete(prompt(model="qwen3:8b", remaining_s=2.0))
        assert trio.current_time() - before < 2.5


async def test_a_peer_does_not_fetch_on_demand_unless_its_owner_said_so(
    virtual_time: JumpingClock,
) -> None:
    notes: list[str] = []
    async with open_world([ASKER, THINKER]) as world:
        with pytest.raises(RequestRefusedError, match="no_peer"):
            await world[0].work.complete(prompt(model="mistyped"), on_restart=notes.append)
        assert notes == []
