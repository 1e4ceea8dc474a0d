from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from kowalski.mesh.conversation import (
    Answer,
    Asker,
    Conversation,
    Limits,
    open_asker,
    serve,
)
from kowalski.mesh.inbox import UNREAD_BYTES_MAX, UNREAD_FRAMES_MAX
from kowalski.mesh.loopback_transport import (
    WINDOW_BYTES,
    LoopbackNetwork,
    LoopbackTransport,
    open_loopback_network,
)
from kowalski.mesh.own_conversation import converse_with_ourselves
from kowalski.mesh.transport import Stream
from kowalski.protocol import codec
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import ContentHash, PeerId
from kowalski.protocol.limits import CONTENT_CHUNK_BYTES, FRAME_BYTES_MAX, IN_FLIGHT_MAX
from kowalski.protocol.messages.base import Cancel, Failed, Message, Refused
from kowalski.protocol.messages.content import ContentAsked, ContentChunk
from kowalski.protocol.messages.membership import RoundTrip
from tests.mesh.transport_promises import join

pytestmark = pytest.mark.trio

A, B = PeerId("AAAAAAAA"), PeerId("BBBBBBBB")
WORK = "/kowalski-test/work/1"
HASH = ContentHash("0" * 64)
Clock = trio.testing.MockClock


def asked(number: int) -> ContentAsked:
    return ContentAsked(hash=HASH, offset=number, bytes_max=1)


def said(number: int) -> ContentChunk:
    return ContentChunk(data=b"", bytes_total=number)


def number_in(message: Message) -> int:
    assert isinstance(message, ContentAsked | ContentChunk)
    return message.offset if isinstance(message, ContentAsked) else message.bytes_total


async def echo(conversation: Conversation, request: Message) -> Message:
    return said(number_in(request))


# --- both ways of asking ------------------------------------------------------------------------

Ask = Callable[[Answer, Message], AbstractAsyncContextManager[Conversation]]


@dataclass
class Wire:
    """Two connected peers, of which the first asks."""

    network: LoopbackNetwork
    near: LoopbackTransport
    far: LoopbackTransport
    asker: Asker

    async def request(self, message: Message, *, timeout_s: float = 5) -> Message:
        return await self.asker.request(B, WORK, message, Message, timeout_s=timeout_s)

    async def raw_stream(self) -> Stream:
        return await self.near.open_stream(B, WORK, timeout_s=5)


@asynccontextmanager
async def open_wire(answer: Answer = echo) -> AsyncIterator[Wire]:
    async with (
        open_loopback_network() as network,
        network.transport(A) as near,
        network.transport(B) as far,
    ):
        serve(far, WORK, answer)
        await join(near, far)
        async with open_asker(near) as asker:
            yield Wire(network, near, far, asker)


@asynccontextmanager
async def another_peer() -> AsyncIterator[Ask]:
    answers: list[Answer] = []

    async def newest(conversation: Conversation, request: Message) -> Message:
        return await answers[-1](conversation, request)

    async with open_wire(newest) as wire:

        @asynccontextmanager
        async def ask(answer: Answer, request: Message) -> AsyncIterator[Conversation]:
            answers.append(answer)
            async with wire.asker.converse(B, WORK, request) as conversation:
                yield conversation

        yield ask


@asynccontextmanager
async def ourselves() -> AsyncIterator[Ask]:
    async with trio.open_nursery() as nursery:
        yield lambda answer, request: converse_with_ourselves(B, answer, request, nursery)
        nursery.cancel_scope.cancel()


Way = Callable[[], AbstractAsyncContextManager[Ask]]
both_ways = pytest.mark.parametrize("asking", [another_peer, ourselves])


@both_ways
async def test_a_request_is_answered_by_what_the_answerer_returns(
    asking: Way, autojump_clock: Clock
) -> None:
    async with asking() as ask, ask(echo, asked(7)) as conversation:
        assert conversation.peer == B
        assert await conversation.receive() == said(7)


@both_ways
async def test_any_number_of_messages_may_come_before_the_last(
    asking: Way, autojump_clock: Clock
) -> None:
    async def count(conversation: Conversation, request: Message) -> Message:
        for number in range(3):
            await conversation.send(said(number))
        return said(99)

    async with asking() as ask, ask(count, asked(0)) as conversation:
        heard = [number_in(await conversation.receive()) for _ in range(4)]
        assert heard == [0, 1, 2, 99]
        with pytest.raises(PeerUnreachableError):
            await conversation.receive()


@both_ways
async def test_both_sides_may_speak_in_turn(asking: Way, autojump_clock: Clock) -> None:
    async def add_up(conversation: Conversation, request: Message) -> Message:
        total = number_in(request)
        for _ in range(3):
            await conversation.send(said(total))
            total += number_in(await conversation.receive())
        return said(total)

    async with asking() as ask, ask(add_up, asked(1)) as conversation:
        for expected in (1, 11, 21):
            assert await conversation.receive() == said(expected)
            await conversation.send(asked(10))
        assert await conversation.receive() == said(31)


@both_ways
@pytest.mark.parametrize(
    ("raised", "heard"),
    [
        (RequestRefusedError("busy", "later", 2.5), RequestRefusedError("busy", "later", 2.5)),
        (RequestFailedError("backend", "it is down"), RequestFailedError("backend", "it is down")),
        (RemoteProtocolError("odd"), RequestFailedError("bad_request", "odd")),
        (PeerUnreachableError("third"), RequestFailedError("unreachable", "third")),
        (ZeroDivisionError("oh"), RequestFailedError("internal", "ZeroDivisionError: oh")),
        (RequestFailedError("Not A Code"), None),
        (RequestRefusedError("busy", retry_after_s=-1.0), None),
    ],
)
async def test_what_the_answerer_raises_becomes_the_answer(
    asking: Way, raised: Exception, heard: Exception | None, autojump_clock: Clock
) -> None:
    async def fail(conversation: Conversation, request: Message) -> Message:
        raise raised

    async with asking() as ask:
        async with ask(fail, asked(1)) as conversation:
            with pytest.raises((RequestRefusedError, RequestFailedError)) as caught:
                await conversation.receive()
        if heard is None:
            assert isinstance(caught.value, RequestFailedError)
            assert caught.value.code == "internal"
        else:
            assert type(caught.value) is type(heard)
            assert vars(caught.value) == vars(heard)
        async with ask(echo, asked(2)) as conversation:
            assert await conversation.receive() == said(2)


@both_ways
async def test_words_too_long_for_a_frame_are_cut(asking: Way, autojump_clock: Clock) -> None:
    async def fail(conversation: Conversation, request: Message) -> Message:
        raise RequestFailedError("backend", "x" * 100_000)

    async with asking() as ask, ask(fail, asked(1)) as conversation:
        with pytest.raises(RequestFailedError) as caught:
            await conversation.receive()
        assert len(caught.value.detail) <= 1024


@both_ways
async def test_leaving_early_stops_the_work_at_once(asking: Way, autojump_clock: Clock) -> None:
    stopped_at: list[float] = []

    async def work(conversation: Conversation, request: Message) -> Message:
        try:
            await conversation.send(said(1))
            await trio.sleep_forever()
        finally:
            stopped_at.append(trio.current_time())
        raise AssertionError

    async with asking() as ask:
        async with ask(work, asked(1)) as conversation:
            await conversation.receive()
        left_at = trio.current_time()
        await trio.sleep(1)
        (stopped,) = stopped_at
        assert stopped - left_at < 0.01


@both_ways
async def test_a_message_after_the_last_word_is_no_error_and_no_request(
    asking: Way, autojump_clock: Clock
) -> None:
    requests: list[Message] = []

    async def refuse(conversation: Conversation, request: Message) -> Message:
        requests.append(request)
        raise RequestRefusedError("busy")

    async with asking() as ask, ask(refuse, asked(1)) as conversation:
        await trio.sleep(1)
        await conversation.send(asked(2))
        await trio.sleep(1)
        with pytest.raises(RequestRefusedError):
            await conversation.receive()
        assert requests == [asked(1)]


@both_ways
async def test_what_is_not_read_has_a_limit(asking: Way, autojump_clock: Clock) -> None:
    async def flood(conversation: Conversation, request: Message) -> Message:
        for number in range(UNREAD_FRAMES_MAX + 10):
            await conversation.send(said(number))
        return said(0)

    async with asking() as ask, ask(flood, asked(1)) as conversation:
        await trio.sleep(5)
        for number in range(UNREAD_FRAMES_MAX):
            assert await conversation.receive() == said(number)
        with pytest.raises(RemoteProtocolError, match="unread"):
            await conversation.receive()


@both_ways
async def test_the_answerer_is_told_of_what_it_did_not_read(
    asking: Way, autojump_clock: Clock
) -> None:
    async def sleep_then_read(conversation: Conversation, request: Message) -> Message:
        await trio.sleep(10)
        while True:
            await conversation.receive()

    async with asking() as ask, ask(sleep_then_read, asked(1)) as conversation:
        for number in range(UNREAD_FRAMES_MAX + 1):
            await conversation.send(asked(number))
        with pytest.raises(RequestFailedError, match="bad_request"):
            await conversation.receive()


async def test_the_end_of_our_own_rooms_is_heard_by_who_still_asks(autojump_clock: Clock) -> None:
    async def work(conversation: Conversation, request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with (
        trio.open_nursery() as rooms,
        converse_with_ourselves(A, work, asked(1), rooms) as conversation,
    ):
        with trio.CancelScope(shield=True):
            rooms.cancel_scope.cancel()
            with trio.fail_after(5), pytest.raises(PeerUnreachableError):
                await conversation.receive()


# --- many on one stream -------------------------------------------------------------------------


async def test_answers_come_when_they_are_ready_and_each_to_its_asker(
    autojump_clock: Clock,
) -> None:
    async def slow_for_large(conversation: Conversation, request: Message) -> Message:
        await trio.sleep(number_in(request))
        return said(number_in(request))

    answered: list[int] = []

    async def ask(wire: Wire, number: int) -> None:
        answered.append(number_in(await wire.request(asked(number), timeout_s=500)))

    async with open_wire(slow_for_large) as wire:
        async with trio.open_nursery() as nursery:
            for number in (5, 3, 1, 4, 2):
                nursery.start_soon(ask, wire, number)
        assert answered == [1, 2, 3, 4, 5]
        assert wire.near.streams_open == 1


async def test_more_than_the_limit_in_flight_are_refused_as_busy_here(
    autojump_clock: Clock,
) -> None:
    async def wait(conversation: Conversation, request: Message) -> Message:
        await trio.sleep(number_in(request))
        return request

    async with open_wire(wait) as wire, trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT_MAX):
            nursery.start_soon(wire.request, asked(3))
        await trio.sleep(1)
        with pytest.raises(RequestRefusedError, match="busy: 256 requests in flight to this peer"):
            await wire.request(asked(0))
        await trio.sleep(4)
        assert await wire.request(asked(0)) == asked(0)


async def test_more_than_the_limit_in_flight_are_refused_as_busy_over_there(
    autojump_clock: Clock,
) -> None:
    async def wait(conversation: Conversation, request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with open_wire(wait) as wire:
        stream = await wire.raw_stream()
        for number in range(1, IN_FLIGHT_MAX + 2):
            await stream.send(codec.seal(codec.Envelope(number, codec.encode(asked(1)))))
        (answer,) = await envelopes(stream, 1)
        assert answer.request == IN_FLIGHT_MAX + 1
        assert answer.is_last
        refused = codec.decode(answer.frame)
        assert isinstance(refused, Refused)
        assert refused.reason == "busy"


async def test_the_stream_is_opened_once_for_those_who_ask_at_the_same_time(
    autojump_clock: Clock,
) -> None:
    async with open_wire() as wire:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(wire.request, asked(number))
        assert wire.near.streams_open == 1
        assert wire.asker._opening == {}


async def test_a_request_may_be_made_when_there_is_a_stream_for_it(autojump_clock: Clock) -> None:
    async with open_wire() as wire:
        made_at: list[frozenset[PeerId]] = []

        async def make() -> Message:
            made_at.append(wire.near.connections)
            return asked(7)

        async with wire.asker.converse(B, WORK, make) as conversation:
            assert await conversation.receive() == said(7)
        await wire.near.disconnect(B)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(PeerUnreachableError):
            async with wire.asker.converse(B, WORK, make):
                pass
        assert made_at == [frozenset({B})], "without a stream it is not made at all"


async def test_who_is_lost_while_a_request_is_made_is_unreachable(autojump_clock: Clock) -> None:
    async with open_wire() as wire:

        async def make() -> Message:
            await wire.near.disconnect(B)
            await trio.testing.wait_all_tasks_blocked()
            return asked(7)

        with pytest.raises(PeerUnreachableError):
            async with wire.asker.converse(B, WORK, make):
                pass


async def test_request_numbers_go_round(autojump_clock: Clock) -> None:
    async with open_wire() as wire:
        await wire.request(asked(1))
        (channel,) = wire.asker._channels.values()
        stream = channel.line.stream
        # Jumps that a long-lived stream comes to, in steps that count as newer.
        for jump in (codec.REQUEST_MAX // 2, codec.REQUEST_MAX - 2):
            channel._next = jump
            for number in range(3):
                assert await wire.request(asked(number)) == said(number)
        assert channel._next == 1
        assert channel.line.stream is stream


# --- the two sides part -------------------------------------------------------------------------


async def test_a_lost_asker_stops_the_work(autojump_clock: Clock) -> None:
    stopped: list[int] = []

    async def work(conversation: Conversation, request: Message) -> Message:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(number_in(request))
        raise AssertionError

    async with open_wire(work) as wire, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            with pytest.raises(PeerUnreachableError):
                await wire.request(asked(number), timeout_s=100)

        for number in range(3):
            nursery.start_soon(ask, number)
        await trio.sleep(1)
        assert stopped == []
        wire.network.cut(A, B)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(stopped) == [0, 1, 2]


async def test_a_lost_answerer_is_an_unreachable_peer_and_the_next_request_finds_its_way(
    autojump_clock: Clock,
) -> None:
    async with open_wire() as wire:
        await wire.request(asked(1))
        await wire.near.disconnect(B)
        with pytest.raises(PeerUnreachableError):
            await wire.request(asked(2))
        await join(wire.near, wire.far)
        assert await wire.request(asked(3)) == said(3)


async def test_no_answer_in_time_is_an_unreachable_peer_and_the_work_stops(
    autojump_clock: Clock,
) -> None:
    stopped = trio.Event()

    async def work(conversation: Conversation, request: Message) -> Message:
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()
        raise AssertionError

    async with open_wire(work) as wire:
        started = trio.current_time()
        with pytest.raises(PeerUnreachableError, match=r"content/asked within 3 s"):
            await wire.request(asked(1), timeout_s=3)
        assert trio.current_time() - started == pytest.approx(3, abs=0.1)
        with trio.fail_after(1):
            await stopped.wait()


async def test_an_answer_of_another_kind_is_a_broken_protocol(autojump_clock: Clock) -> None:
    async with open_wire() as wire:
        with pytest.raises(RemoteProtocolError, match=r"content/chunk in answer to content/asked"):
            await wire.asker.request(B, WORK, asked(1), RoundTrip, timeout_s=5)


async def test_a_peer_that_is_not_admitted_is_refused_and_no_work_is_done(
    autojump_clock: Clock,
) -> None:
    requests: list[Message] = []
    members: set[PeerId] = set()

    async def work(conversation: Conversation, request: Message) -> Message:
        requests.append(request)
        return request

    async with open_wire() as wire:
        serve(wire.far, WORK, work, admits=members.__contains__)
        with pytest.raises(RequestRefusedError) as caught:
            await wire.request(asked(1))
        assert caught.value.reason == "not_member"
        assert requests == []
        members.add(A)
        assert await wire.request(asked(2)) == asked(2)
        members.clear()
        with pytest.raises(RequestRefusedError):
            await wire.request(asked(3))


# --- what comes is no message -------------------------------------------------------------------


async def envelopes(stream: Stream, count: int) -> list[codec.Envelope]:
    reader, found = codec.EnvelopeReader(), []
    while len(found) < count:
        data = await stream.receive()
        assert data, "the stream ended"
        found += reader.feed(data)
    return found


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff", b"\x83", codec.encode(asked(1))[:-1], b"not a frame at all"]
)
async def test_a_request_that_is_no_message_fails_alone(
    garbage: bytes, autojump_clock: Clock
) -> None:
    async with open_wire() as wire:
        stream = await wire.raw_stream()
        await stream.send(codec.seal(codec.Envelope(1, garbage)))
        await stream.send(codec.seal(codec.Envelope(2, codec.encode(asked(5)))))
        answers = {
            envelope.request: codec.decode(envelope.frame)
            for envelope in await envelopes(stream, 2)
        }
        failed = answers[1]
        assert isinstance(failed, Failed)
        assert failed.code == "bad_request"
        assert answers[2] == said(5)


async def test_garbage_in_the_middle_of_a_conversation_fails_it_alone(
    autojump_clock: Clock,
) -> None:
    async def add(conversation: Conversation, request: Message) -> Message:
        return said(number_in(request) + number_in(await conversation.receive()))

    async with open_wire(add) as wire:
        stream = await wire.raw_stream()
        for number in (1, 2):
            await stream.send(codec.seal(codec.Envelope(number, codec.encode(asked(number)))))
        await stream.send(codec.seal(codec.Envelope(1, b"garbage")))
        await stream.send(codec.seal(codec.Envelope(2, codec.encode(asked(40)))))
        answers = {
            envelope.request: codec.decode(envelope.frame)
            for envelope in await envelopes(stream, 2)
        }
        assert isinstance(answers[1], Failed)
        assert answers[2] == said(42)


async def test_garbage_in_an_answer_is_the_other_sides_fault_and_ends_that_request_alone(
    autojump_clock: Clock,
) -> None:
    async def answer(stream: Stream) -> None:
        for envelope in await envelopes(stream, 2):
            good = codec.encode(said(envelope.request))
            frame = b"garbage" if envelope.request == 1 else good
            await stream.send(codec.seal(codec.Envelope(envelope.request, frame, is_last=True)))
        await stream.receive()

    async with open_wire() as wire:
        wire.far.serve(WORK, answer)
        async with (
            wire.asker.converse(B, WORK, asked(1)) as one,
            wire.asker.converse(B, WORK, asked(2)) as two,
        ):
            with pytest.raises(RemoteProtocolError):
                await one.receive()
            assert await two.receive() == said(2)


async def test_a_frame_above_the_limit_resets_its_stream_and_no_other(
    autojump_clock: Clock,
) -> None:
    async with open_wire() as wire:
        assert await wire.request(asked(1)) == said(1)
        stream = await wire.raw_stream()
        await stream.send((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4))
        with trio.fail_after(5), pytest.raises(PeerUnreachableError):
            await stream.receive()
        assert await wire.request(asked(2)) == said(2)


async def test_an_answer_above_the_limit_ends_every_request_of_that_stream(
    autojump_clock: Clock,
) -> None:
    told = trio.Event()

    async def answer(stream: Stream) -> None:
        await envelopes(stream, 1)
        await stream.send((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4))
        try:
            while await stream.receive():
                pass
        except PeerUnreachableError:
            told.set()

    async with open_wire() as wire:
        wire.far.serve(WORK, answer)
        with pytest.raises(RemoteProtocolError):
            await wire.request(asked(1))
        with trio.fail_after(1):
            await told.wait()
        serve(wire.far, WORK, echo)
        assert await wire.request(asked(2)) == said(2)


async def test_an_answer_too_large_to_send_is_a_failure_and_the_stream_lives_on(
    autojump_clock: Clock,
) -> None:
    async def answer(conversation: Conversation, request: Message) -> Message:
        if number_in(request) == 1:
            return Refused.model_construct(reason="busy", detail="x" * FRAME_BYTES_MAX)
        return said(2)

    async with open_wire(answer) as wire:
        with pytest.raises(RequestFailedError, match="internal"):
            await wire.request(asked(1))
        assert await wire.request(asked(2)) == said(2)


async def test_a_cancel_that_comes_late_or_for_nothing_is_ignored(autojump_clock: Clock) -> None:
    async with open_wire() as wire:
        stream = await wire.raw_stream()
        cancel = codec.encode(Cancel())
        await stream.send(codec.seal(codec.Envelope(9, cancel, is_last=True)))
        await stream.send(codec.seal(codec.Envelope(10, codec.encode(asked(1)))))
        (answer,) = await envelopes(stream, 1)
        await stream.send(codec.seal(codec.Envelope(10, cancel, is_last=True)))
        await stream.send(codec.seal(codec.Envelope(11, codec.encode(asked(2)))))
        (second,) = await envelopes(stream, 1)
        assert [answer.request, second.request] == [10, 11]


async def test_unread_bytes_have_a_limit_too(autojump_clock: Clock) -> None:
    chunk = ContentChunk(data=bytes(CONTENT_CHUNK_BYTES), bytes_total=0)
    count = UNREAD_BYTES_MAX // CONTENT_CHUNK_BYTES + 1

    async def flood(conversation: Conversation, request: Message) -> Message:
        for _ in range(count):
            await conversation.send(chunk)
        return said(0)

    async with open_wire(flood) as wire, wire.asker.converse(B, WORK, asked(1)) as conversation:
        await trio.sleep(5)
        received = []
        with pytest.raises(RemoteProtocolError, match="unread"):
            received.extend([await conversation.receive() for _ in range(count)])


async def test_a_stream_may_be_given_less(autojump_clock: Clock) -> None:
    async def wait_and_read(conversation: Conversation, request: Message) -> Message:
        await trio.sleep(5)
        while True:
            await conversation.receive()

    async with open_wire() as wire:
        serve(wire.far, WORK, wait_and_read, limits=Limits(in_flight=2, unread_bytes=1000))
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                async with wire.asker.converse(B, WORK, asked(1)) as conversation:
                    for _ in range(3):
                        await conversation.send(ContentChunk(data=bytes(600), bytes_total=1))
                    with pytest.raises(RequestFailedError, match="1 unread frames"):
                        await conversation.receive()

            nursery.start_soon(flood)
            nursery.start_soon(flood)
            await trio.sleep(1)
            with pytest.raises(RequestRefusedError, match="busy"):
                await wire.request(asked(1))


async def test_what_was_read_does_not_count_any_more(autojump_clock: Clock) -> None:
    async def read_at_once(conversation: Conversation, request: Message) -> Message:
        for _ in range(10):
            await conversation.receive()
        return said(10)

    async with open_wire() as wire:
        serve(wire.far, WORK, read_at_once, limits=Limits(unread_bytes=1000))
        async with wire.asker.converse(B, WORK, asked(1)) as conversation:
            for _ in range(10):
                await conversation.send(ContentChunk(data=bytes(600), bytes_total=1))
                await trio.sleep(1)
            assert await conversation.receive() == said(10)


# --- pressure -----------------------------------------------------------------------------------


async def test_who_is_cancelled_half_way_through_a_frame_tears_nobody_elses_request(
    autojump_clock: Clock,
) -> None:
    large = ContentChunk(data=bytes(CONTENT_CHUNK_BYTES), bytes_total=1)
    assert CONTENT_CHUNK_BYTES > WINDOW_BYTES
    reads = trio.Event()

    async def read_late(stream: Stream) -> None:
        reader = codec.EnvelopeReader()
        await reads.wait()
        while data := await stream.receive():
            for envelope in reader.feed(data):
                if not envelope.is_last:
                    answer = codec.Envelope(envelope.request, codec.encode(said(5)), is_last=True)
                    await stream.send(codec.seal(answer))

    async with open_wire() as wire, trio.open_nursery() as nursery:
        wire.far.serve(WORK, read_late)

        async def give_up() -> None:
            with trio.move_on_after(1):
                await wire.request(large)

        nursery.start_soon(give_up)
        await trio.sleep(0.5)
        answers: list[Message] = []

        async def ask() -> None:
            answers.append(await wire.request(asked(1), timeout_s=60))

        nursery.start_soon(ask)
        await trio.sleep(3)
        reads.set()
        await trio.sleep(3)
        assert answers == [said(5)]


async def test_a_peer_that_reads_nothing_is_given_up_and_a_new_stream_serves(
    autojump_clock: Clock,
) -> None:
    large = ContentChunk(data=bytes(CONTENT_CHUNK_BYTES), bytes_total=1)

    async def read_nothing(stream: Stream) -> None:
        await trio.sleep_forever()

    async with open_wire() as wire:
        wire.far.serve(WORK, read_nothing)
        with pytest.raises(PeerUnreachableError):
            await wire.request(large, timeout_s=60)
        serve(wire.far, WORK, echo)
        assert await wire.request(asked(1)) == said(1)
