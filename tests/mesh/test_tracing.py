"""A trace goes along with requests, from peer to peer, and never further than it should."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.mesh.conversation import Conversation, serve
from kowalski.mesh.own_conversation import converse_with_ourselves
from kowalski.mesh.tracing import trace_context
from kowalski.protocol import codec
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message, Trace
from tests.mesh.test_conversation import WORK, asked, open_wire, said

pytestmark = pytest.mark.trio

CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Clock = trio.testing.MockClock


class Noting:
    """Answers, and keeps the trace in which each request was answered."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def __call__(self, _conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        self.heard.append(trace_context.get())
        return said(0)


async def test_who_answers_works_in_the_trace_of_who_asked(autojump_clock: Clock) -> None:
    noting = Noting()
    async with open_wire(noting) as wire:
        await wire.request(asked(1))
        token = trace_context.set(CONTEXT)
        await wire.request(asked(2))
        trace_context.reset(token)
        await wire.request(asked(3))
    assert noting.heard == ["", CONTEXT, ""]


async def test_requests_at_the_same_time_keep_their_own_traces(autojump_clock: Clock) -> None:
    noting = Noting()
    contexts = [f"00-{number:032x}-b7ad6b7169203331-01" for number in range(1, 41)]
    async with open_wire(noting) as wire:

        async def ask(context: str) -> None:
            trace_context.set(context)
            await wire.request(asked(0))

        async with trio.open_nursery() as nursery:
            for context in contexts:
                nursery.start_soon(ask, context)
    assert sorted(noting.heard) == sorted(contexts)


async def test_a_node_that_asks_itself_stays_in_its_trace(autojump_clock: Clock) -> None:
    noting = Noting()
    trace_context.set(CONTEXT)
    async with (
        trio.open_nursery() as nursery,
        converse_with_ourselves(PeerId("me"), noting, asked(1), nursery) as conversation,
    ):
        await conversation.receive()
    assert noting.heard == [CONTEXT]


async def test_a_note_is_about_the_next_request_alone(autojump_clock: Clock) -> None:
    noting = Noting()
    async with open_wire(noting) as wire:
        stream = await wire.raw_stream()
        note = codec.seal(codec.Envelope(0, codec.encode(Trace(context=CONTEXT))))
        for number, before in ((1, note + note), (2, b""), (3, note)):
            request = codec.seal(codec.Envelope(number, codec.encode(asked(number))))
            await stream.send(before + request)
        reader = codec.EnvelopeReader()
        answered = 0
        while answered < 3:
            answered += len(reader.feed(await stream.receive()))
    assert noting.heard == [CONTEXT, "", CONTEXT]


async def test_what_is_noted_by_who_is_not_admitted_is_not_read(autojump_clock: Clock) -> None:
    noting = Noting()

    def admits(_peer: PeerId) -> bool:
        raise RequestRefusedError("not_member")

    async with open_wire(noting) as wire:
        serve(wire.far, WORK, noting, admits=admits)
        stream = await wire.raw_stream()
        junk = codec.seal(codec.Envelope(0, b"\xff" * 100))
        await stream.send(junk + codec.seal(codec.Envelope(1, codec.encode(asked(1)))))
        reader = codec.EnvelopeReader()
        answers: list[codec.Envelope] = []
        while not answers:
            answers += reader.feed(await stream.receive())
        refused = codec.decode(answers[0].frame)
        assert "not_member" in str(refused)
    assert noting.heard == []


async def test_a_note_that_is_nonsense_is_a_bad_request(autojump_clock: Clock) -> None:
    noting = Noting()
    async with open_wire(noting) as wire:
        stream = await wire.raw_stream()
        junk = codec.seal(codec.Envelope(0, b"\xff" * 100))
        await stream.send(junk + codec.seal(codec.Envelope(1, codec.encode(asked(1)))))
        reader = codec.EnvelopeReader()
        answers: list[codec.Envelope] = []
        while not answers:
            answers += reader.feed(await stream.receive())
        assert "bad_request" in str(codec.decode(answers[0].frame))
    assert noting.heard == []
