"""Model calls of which the peer is lost in the middle: going on, beginning anew, counting once."""

from __future__ import annotations

import dataclasses
import struct

import pytest
import trio

from kowalski.mesh.conversation import Answer, Conversation
from kowalski.node.services import inference
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    EmbeddingsAsked,
    EmbeddingsDone,
    EmbeddingsPiece,
    Sampling,
    Tool,
    ToolCall,
    ToolCallPiece,
    Usage,
)
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, THINKER
from tests.node.services.test_placed_work import INFERENCE, Instead, best, done, prompt

pytestmark = pytest.mark.trio

SLOW = dataclasses.replace(THINKER, delay_per_token_s=1.0)


async def lose_after(world: World, number: int, deltas: list[str], count: int) -> None:
    await world.until(lambda: len(deltas) == count)
    await world.kill(number)


async def test_another_peer_goes_on_with_an_answer_that_was_cut_off(
    virtual_time: JumpingClock,
) -> None:
    deltas: list[str] = []
    told: list[str] = []
    async with open_world([ASKER, SLOW, SLOW]) as world, trio.open_nursery() as nursery:
        first = best(world, INFERENCE)
        nursery.start_soon(lose_after, world, first, deltas, 2)
        reply = await world[0].work.complete(
            prompt(), on_delta=deltas.append, on_restart=told.append, may_begin_anew=False
        )
        assert reply.text == "".join(deltas) == "reply to: hello"
        assert world.number_of(reply.placed.peer) == 3 - first
        assert told == []
        # Three words were said and one was asked, whoever said them; only one peer could count.
        assert reply.done.usage.is_estimate
        assert reply.done.usage.completion_tokens >= 3
        assert reply.done.usage.prompt_tokens <= 1


def cut_off_after(*deltas: CompletionDelta) -> Answer:
    async def answer(conversation: Conversation, _request: Message) -> Message:
        for delta in deltas:
            await conversation.send(delta)
        raise RequestFailedError("backend", "it died")

    return answer


async def goes_on_with_nothing(_conversation: Conversation, request: Message) -> Message:
    """A peer whose server cannot go on with an answer."""
    await trio.lowlevel.checkpoint()
    assert isinstance(request, CompletionAsked)
    if request.so_far:
        raise RequestRefusedError("unsupported", "exo has no so_far")
    await _conversation.send(CompletionDelta(text="all anew"))
    return done()


HALF = cut_off_after(CompletionDelta(text="half of "))


async def test_one_that_cannot_go_on_begins_anew_and_says_so(virtual_time: JumpingClock) -> None:
    told: list[str] = []
    async with open_world([ASKER, THINKER, THINKER]) as world:
        first = best(world, INFERENCE)
        Instead(world, inference.PROTOCOL, HALF, first)
        other = Instead(world, inference.PROTOCOL, goes_on_with_nothing, 3 - first)
        reply = await world[0].work.complete(prompt(), on_restart=told.append)
        assert reply.text == "all anew"
        assert other.asked == [3 - first, 3 - first]
        (why,) = told
        assert "it died" in why
        assert "cannot go on" in why


async def test_what_was_shown_is_not_taken_back_where_that_may_not_be(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        first = best(world, INFERENCE)
        Instead(world, inference.PROTOCOL, HALF, first)
        Instead(world, inference.PROTOCOL, goes_on_with_nothing, 3 - first)
        with pytest.raises(RequestFailedError, match=r"^cut_short: .*it died"):
            await world[0].work.complete(prompt(), may_begin_anew=False)


CALL = CompletionDelta(tool_calls=(ToolCallPiece(index=0, id="c", name="look", arguments="{"),))


@pytest.mark.parametrize(
    ("delta", "field"),
    [
        (CALL, {"tools": (Tool(name="look"),)}),
        (CompletionDelta(text="{"), {"json_schema": "{}"}),
        (CompletionDelta(text="a"), {"logprobs": 0}),
        (CompletionDelta(thinking="hm"), {}),
    ],
)
async def test_what_is_bound_to_its_beginning_is_begun_anew(
    virtual_time: JumpingClock, delta: CompletionDelta, field: dict[str, object]
) -> None:
    heard: list[CompletionAsked] = []

    async def answer(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, CompletionAsked)
        heard.append(request)
        await conversation.send(CompletionDelta(text="all of it"))
        return done()

    asked = prompt().model_copy(update=field)
    async with open_world([ASKER, THINKER, THINKER]) as world:
        first = best(world, INFERENCE)
        Instead(world, inference.PROTOCOL, cut_off_after(delta), first)
        Instead(world, inference.PROTOCOL, answer, 3 - first)
        reply = await world[0].work.complete(asked)
        assert (reply.text, reply.reply.thinking, reply.reply.tool_calls) == ("all of it", "", ())
        assert [one.so_far for one in heard] == [""]
    async with open_world([ASKER, THINKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, cut_off_after(delta), 1, 2)
        with pytest.raises(RequestFailedError, match="cut_short"):
            await world[0].work.complete(asked, may_begin_anew=False)


async def test_all_kinds_of_pieces_are_gathered_and_heard(virtual_time: JumpingClock) -> None:
    sent = (
        CompletionDelta(thinking="let me see"),
        CompletionDelta(text="I look."),
        CompletionDelta(tool_calls=(ToolCallPiece(index=1, id="b", name="count"),)),
        CompletionDelta(
            tool_calls=(ToolCallPiece(index=0, id="a", name="look", arguments='{"x"'),)
        ),
        CompletionDelta(tool_calls=(ToolCallPiece(index=0, arguments=":1}"),)),
    )
    heard: list[CompletionDelta] = []

    async def answer(conversation: Conversation, _request: Message) -> Message:
        for delta in sent:
            await conversation.send(delta)
        usage = Usage(prompt_tokens=1, completion_tokens=1)
        return CompletionDone(model="m", finish_reason="tool_calls", usage=usage, held_s=0.0)

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, answer, 1)
        reply = await world[0].work.complete(prompt(), on_piece=heard.append)
    assert (reply.text, reply.reply.thinking) == ("I look.", "let me see")
    assert reply.reply.tool_calls == (
        ToolCall(id="a", name="look", arguments='{"x":1}'),
        ToolCall(id="b", name="count"),
    )
    assert tuple(heard) == sent


# --- embeddings ---------------------------------------------------------------------------------


def embeddings_asked(*texts: str, model: str = "m") -> EmbeddingsAsked:
    return EmbeddingsAsked(model=model, texts=texts, remaining_s=30.0)


async def test_texts_become_vectors_in_their_order(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        found = await world[0].work.embed(embeddings_asked("aab", "b", "z"))
        assert found.done.dimensions == 26
        counts = [struct.unpack("<26f", vector)[:2] for vector in found.vectors]
        assert counts == [(2.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
        assert (found.done.usage.prompt_tokens, found.done.usage.completion_tokens) == (3, 0)


async def test_vectors_that_are_missing_are_a_fault_of_the_peer(
    virtual_time: JumpingClock,
) -> None:
    async def answer(conversation: Conversation, _request: Message) -> Message:
        await conversation.send(EmbeddingsPiece(vectors=bytes(8)))
        usage = Usage(prompt_tokens=1, completion_tokens=0)
        return EmbeddingsDone(model="m", dimensions=2, usage=usage, held_s=0.0)

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, answer, 1)
        assert len((await world[0].work.embed(embeddings_asked("a"))).vectors) == 1
        with pytest.raises(RequestFailedError, match="8 bytes of vectors for 2 texts"):
            await world[0].work.embed(embeddings_asked("a", "b"))


async def test_a_model_that_nobody_has_embeds_nothing(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        with pytest.raises(RequestRefusedError, match="no_peer: no peer has model other"):
            await world[0].work.embed(embeddings_asked("a", model="other"))


# --- what a server would leave out ---------------------------------------------------------------

DEMANDS: dict[str, tuple[str, dict[str, object]]] = {
    "json_schema": ("exo", {"json_schema": '{"type": "object"}'}),
    "tool_choice": ("exo", {"tools": (Tool(name="look"),), "tool_choice": "required"}),
    "logprobs": ("lm-studio", {"logprobs": 2}),
    "thinking": ("openai", {"thinking": "high"}),
    "top_k": ("openai", {"sampling": Sampling(top_k=3)}),
}


@pytest.mark.parametrize("demand", DEMANDS)
async def test_what_one_server_leaves_out_in_silence_goes_to_a_peer_whose_server_does_not(
    demand: str, virtual_time: JumpingClock
) -> None:
    kind, asked = DEMANDS[demand]
    answers = dataclasses.replace(THINKER, tells=lambda _: '{"n": 1}')
    async with open_world([ASKER, answers, answers]) as world:
        first = best(world, INFERENCE)
        world.places[first].backend.kind = kind
        request = prompt().model_copy(update=asked)
        reply = await world[0].work.complete(request)
        assert world.number_of(reply.placed.peer) == 3 - first
        assert len(world.calls) == 1
        world.places[3 - first].backend.kind = kind
        with pytest.raises(RequestRefusedError, match=rf"^unsupported: .*no {demand}"):
            await world[0].work.complete(request)
        assert len(world.calls) == 1
