"""The room that answers model calls, asked over frames by a peer; the model is a function."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from kowalski.node.backends.catalogue import open_catalogue
from kowalski.node.backends.in_memory import AnswerBy, InMemoryBackend
from kowalski.node.backends.probing import Candidate, Finding
from kowalski.node.backends.seam import (
    Backend,
    BackendError,
    BackendErrorCode,
    CallPiece,
    Completed,
    CompletionEvent,
    CompletionRequest,
    Delta,
    Embedded,
    EmbeddingRequest,
    ModelInfo,
)
from kowalski.node.services import inference
from kowalski.node.services.inference import PROTOCOL, InferenceRoom
from kowalski.node.services.telemetry import NodeTelemetry
from kowalski.protocol.codec import encode
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import Address, PeerId, TaskId
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.telemetry import Model, Occupancy
from kowalski.protocol.messages.trust import ROLES
from simulations.virtual_time import JumpingClock
from simulations.world import IDLE, PROFILE
from tests.faulty_network import Asked, Recording, open_faulty
from tests.node.backends.asking import openai_at
from tests.node.services.rooms import HOT, PatientClock, Two, hot, open_two, until

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


MODEL = ModelInfo("m", context_tokens=4096, is_warm=True, slots=2)


def asked(prompt: str = "hello", **more: Any) -> wire.CompletionAsked:  # noqa: ANN401 fields
    given: dict[str, Any] = {
        "model": "m",
        "messages": (wire.ChatMessage(role="user", content=prompt),),
        "remaining_s": 30.0,
        **more,
    }
    return wire.CompletionAsked(**given)


def echo(request: CompletionRequest) -> str:
    return f"you said {request.messages[-1].content}"


class Playing(InMemoryBackend):
    """Says just these events, whatever is asked."""

    def __init__(self, *events: CompletionEvent) -> None:
        super().__init__(echo, models=(MODEL,))
        self._said = events

    @asynccontextmanager
    async def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> AsyncIterator[AsyncIterator[CompletionEvent]]:
        async with aclosing(self._play()) as events:
            yield events

    async def _play(self) -> AsyncGenerator[CompletionEvent, None]:
        for event in self._said:
            await trio.lowlevel.checkpoint()
            yield event


@dataclass(slots=True)
class Desk:
    two: Two
    room: InferenceRoom

    async def complete(self, request: wire.CompletionAsked) -> tuple[list[str], Any]:
        """The deltas, and the end."""
        deltas: list[str] = []
        async with self.two.asking.asker.converse(
            self.two.room.peer, PROTOCOL, request
        ) as conversation:
            while isinstance(message := await conversation.receive(), wire.CompletionDelta):
                deltas.append(message.text)
        return deltas, message


@asynccontextmanager
async def open_desk(
    folder: Path, *backends: Backend, asks_itself: bool = False
) -> AsyncIterator[Desk]:
    by_url = {backend.url: backend for backend in backends}

    async def look(wanted: Sequence[Candidate]) -> tuple[Finding, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(Finding(one.url, True, "openai", by_url[one.url]) for one in wanted)

    places = [Candidate(url, url) for url in by_url]
    async with open_two(folder) as two, open_catalogue(places, look) as catalogue:
        me = two.asking.peer if asks_itself else two.room.peer
        room = InferenceRoom(catalogue, two.room.store, two.room.requester, hot=hot, me=me)
        two.room.serve(PROTOCOL, room.answer)
        yield Desk(two, room)


def backend(
    answer: AnswerBy = echo,
    *,
    models: tuple[ModelInfo, ...] = (MODEL,),
    **more: Any,  # noqa: ANN401 options of the backend
) -> InMemoryBackend:
    return InMemoryBackend(answer, models=models, **more)


# --- what is answered ---------------------------------------------------------------------------


async def test_an_answer_comes_in_pieces_and_ends_with_what_it_cost(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, backend(delay_per_token_s=0.5)) as desk:
        deltas, done = await desk.complete(asked("good day"))
        assert deltas == ["you", " said", " good", " day"]
        assert isinstance(done, wire.CompletionDone)
        assert done.usage == wire.Usage(prompt_tokens=2, completion_tokens=4, is_estimate=False)
        assert (done.model, done.finish_reason, done.hot) == ("m", "stop", HOT)
        assert done.held_s == pytest.approx(2.0)


async def test_a_node_is_not_told_how_full_it_is_itself(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, backend(), asks_itself=True) as desk:
        _, done = await desk.complete(asked("good day"))
        assert done.hot is None


async def test_a_piece_waits_for_the_next_one_only_where_that_is_here_already(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    """A server that says one thing, a second later two at once, a second later the end."""
    one, two = (f'data: {{"choices":[{{"delta":{{"content":"{n}"}}}}]}}\n\n' for n in (1, 2))
    end = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    parts = (one, two + two, end)
    size = max(map(len, parts))
    said = Recording(
        "HTTP/1.1 200 OK\nContent-Type: text/event-stream",
        "".join(part.ljust(size, "\n") for part in parts).encode(),
    )
    models = Recording("HTTP/1.1 200 OK\nContent-Type: application/json", b'{"data":[{"id":"m"}]}')

    def give(asked: Asked) -> Recording:
        return said if asked.method == "POST" else models

    async with (
        open_faulty(give) as (network, http),
        open_desk(tmp_path, openai_at("http://server", http)) as desk,
    ):
        network.piece_bytes, network.second_per_piece = size, True
        began, heard = trio.current_time(), []
        asking = desk.two.asking.asker.converse(desk.two.room.peer, PROTOCOL, asked())
        async with asking as conversation:
            while isinstance(message := await conversation.receive(), wire.CompletionDelta):
                heard.append((message.text, trio.current_time() - began))
        ended_s = trio.current_time() - began
    texts, at_s = [text for text, _ in heard], [at for _, at in heard]
    assert texts == ["1", "2", "2"]
    assert at_s[1] - at_s[0] == pytest.approx(1.0, abs=0.1)
    assert at_s[2] - at_s[1] == pytest.approx(0.0, abs=0.1)
    assert ended_s - at_s[2] == pytest.approx(1.0, abs=0.1)


async def test_what_was_asked_reaches_the_backend_as_it_was(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    heard: list[CompletionRequest] = []

    def answer(request: CompletionRequest) -> str:
        heard.append(request)
        return "one two three"

    messages = (
        wire.ChatMessage(role="system", content="be brief"),
        wire.ChatMessage(role="user", content="hello"),
    )
    async with open_desk(tmp_path, backend(answer)) as desk:
        request = asked(messages=messages, max_tokens=2, temperature=0.25)
        deltas, done = await desk.complete(request)
        (request_heard,) = heard
        assert [(m.role, m.content) for m in request_heard.messages] == [
            ("system", "be brief"),
            ("user", "hello"),
        ]
        assert (request_heard.max_tokens, request_heard.temperature) == (2, 0.25)
        assert (deltas, done.finish_reason) == (["one", " two"], "length")


async def test_a_long_piece_is_cut_to_what_a_delta_may_carry(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    text = "\N{CJK UNIFIED IDEOGRAPH-6F22}" * (2 * inference.DELTA_CHARS_MAX + 10)
    async with open_desk(tmp_path, backend(lambda _request: text)) as desk:
        deltas, _ = await desk.complete(asked())
        assert [len(piece) for piece in deltas] == [4096, 4096, 10]
        assert "".join(deltas) == text


async def test_half_a_surrogate_pair_from_a_model_does_not_end_the_answer(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, backend(lambda _request: "a \ud83d b")) as desk:
        deltas, _ = await desk.complete(asked())
        assert "".join(deltas) == "a \ufffd b"


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "stop"),
        ("MAX_TOKENS", "max_tokens"),
        ("tool-calls", "tool_calls"),
        ("", "stop"),
        ("42", "stop"),
        ("_9 lives", "lives"),
        ("\u00e9tat", "tat"),
        ("x" * 99, "x" * 40),
    ],
)
async def test_a_finish_reason_becomes_a_code(
    virtual_time: JumpingClock, tmp_path: Path, reason: str, word: str
) -> None:
    end = Completed(reason, 1, 2, usage_is_estimate=True)
    async with open_desk(tmp_path, Playing(Delta("yes"), end)) as desk:
        deltas, done = await desk.complete(asked())
        assert (deltas, done.finish_reason) == (["yes"], word)
        assert done.usage.is_estimate


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("unreachable", "backend: unreachable: its words"),
        ("bad_reply", "backend: bad_reply: its words"),
        ("stalled", "backend: stalled: its words"),
        ("rejected", "backend: rejected: its words"),
    ],
)
@pytest.mark.parametrize("is_under_way", [False, True])
async def test_a_backend_that_fails_is_a_failure_with_its_code_and_words(
    virtual_time: JumpingClock,
    tmp_path: Path,
    code: BackendErrorCode,
    told: str,
    is_under_way: bool,
) -> None:
    server = backend(delay_per_token_s=1.0)
    async with open_desk(tmp_path, server) as desk, trio.open_nursery() as nursery:
        failure = BackendError(code, "its words")
        if is_under_way:
            nursery.start_soon(fail_after, server, failure, 1.5)
        else:
            server.failure = failure
        with pytest.raises(RequestFailedError) as failed:
            await desk.complete(asked())
        assert str(failed.value) == told
        assert server.in_flight == 0


async def fail_after(server: InMemoryBackend, failure: BackendError, delay_s: float) -> None:
    await trio.sleep(delay_s)
    server.failure = failure


async def test_an_overloaded_backend_is_busy_and_passes_on_when_to_come_back(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = backend()
    async with open_desk(tmp_path, server) as desk:
        server.failure = BackendError("overloaded", "its queue is long", 7.0)
        with pytest.raises(RequestRefusedError, match="busy: its queue is long") as busy:
            await desk.complete(asked())
        assert busy.value.retry_after_s == 7.0


async def test_a_model_that_is_not_here_is_unsupported(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, backend()) as desk:
        with pytest.raises(RequestRefusedError, match=r"unsupported: .*'nosuch'"):
            await desk.complete(asked(model="nosuch"))


async def test_a_model_that_thinks_for_too_long_has_stalled(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, backend(delay_per_token_s=600.0)) as desk:
        before = trio.current_time()
        with pytest.raises(RequestFailedError, match="backend: stalled: "):
            await desk.complete(asked(remaining_s=300.0))
        assert trio.current_time() - before == pytest.approx(inference.IDLE_TIMEOUT_S, abs=0.1)


async def test_an_asker_that_waits_no_longer_is_told_timeout_and_the_backend_stops(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = backend(lambda _request: "word " * 100, delay_per_token_s=1.0)
    async with open_desk(tmp_path, server) as desk:
        before = trio.current_time()
        with pytest.raises(RequestFailedError, match=r"^timeout: no end within 5\.0 s"):
            await desk.complete(asked(remaining_s=5.0))
        assert trio.current_time() - before == pytest.approx(5.0, abs=0.1)
        assert server.in_flight == 0
        assert desk.room.occupancy.running == 0


async def test_a_backend_that_ends_without_an_end_has_failed(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, Playing(Delta("half of"))) as desk:
        with pytest.raises(RequestFailedError, match="backend: the answer did not end"):
            await desk.complete(asked())


async def test_what_is_no_request_to_a_model_is_a_bad_request(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, backend()) as desk:
        with pytest.raises(RequestFailedError, match="bad_request: membership/round-trip in an"):
            await desk.two.asking.asker.request(
                desk.two.room.peer, PROTOCOL, RoundTrip(), RoundTrip, timeout_s=5
            )


# --- how full it is -----------------------------------------------------------------------------


async def test_an_asker_that_goes_away_frees_the_slot(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = backend(lambda _request: "word " * 100, delay_per_token_s=1.0)
    async with open_desk(tmp_path, server) as desk:
        with trio.move_on_after(3.0):
            await desk.complete(asked(remaining_s=300.0))
        await until(lambda: server.in_flight == 0, within_s=0.5)
        assert desk.room.occupancy == Occupancy(running=0, slots=2)


async def test_calls_beyond_the_slots_are_refused_and_counted_meanwhile(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = backend(lambda _request: "word " * 10, delay_per_token_s=1.0)
    async with open_desk(tmp_path, server) as desk, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(desk.complete, asked())
        await until(lambda: desk.room.occupancy.running == 2)
        assert desk.room.occupancy == Occupancy(running=2, slots=2)
        with pytest.raises(RequestRefusedError, match="busy") as busy:
            await desk.complete(asked())
        assert busy.value.retry_after_s is not None


async def test_the_room_tells_its_models_once_each_the_preferred_first_with_their_speed(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    cold = ModelInfo("cold", context_tokens=None, slots=3)
    one = backend(models=(cold, MODEL), url="memory://one", delay_per_token_s=0.1)
    other = backend(models=(MODEL, ModelInfo("only here")), url="memory://other")
    async with open_desk(tmp_path, one, other) as desk:
        assert desk.room.models[0] == Model(
            name="m", context_tokens=4096, is_warm=True, backend="in-memory"
        )
        assert [model.name for model in desk.room.models] == ["m", "cold", "only here"]
        assert desk.room.occupancy == Occupancy(running=0, slots=2 + 2)
        assert desk.room.tokens_per_s == {}
        await desk.complete(asked("a b c d e f", model="cold"))
        assert desk.room.tokens_per_s == {"cold": pytest.approx(10.0)}


async def test_of_two_servers_with_one_model_the_preferred_ones_speed_is_told(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    slow = backend(url="memory://slow", delay_per_token_s=1.0)
    fast = backend(url="memory://fast", delay_per_token_s=0.1)
    async with open_desk(tmp_path, slow, fast) as desk:
        for _ in range(2):  # one that was never measured is tried
            await desk.complete(asked("a b c d e f"))
        assert desk.room.tokens_per_s == {"m": pytest.approx(10.0)}


async def test_what_is_told_of_models_is_the_same_tuple_until_one_of_them_changes(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    server = backend(models=(ModelInfo("a", is_warm=True), ModelInfo("b")))
    async with open_desk(tmp_path, server) as desk:
        before = desk.room.models
        await desk.complete(asked("a b c d e f", model="a"))
        assert desk.room.models is before
        await desk.complete(asked("a b c d e f", model="b"))
        assert [(one.name, one.is_warm) for one in desk.room.models] == [("a", True), ("b", True)]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"m{n:03}" for n in range(inference.MODELS_MAX + 5)], inference.MODELS_MAX),
        ([f"{n:03}" + "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 250 for n in range(100)], 10),
    ],
)
async def test_no_more_models_are_told_than_can_be_gossiped(
    virtual_time: JumpingClock, tmp_path: Path, names: list[str], told: int
) -> None:
    many = tuple(ModelInfo(name, context_tokens=2**40, is_warm=True) for name in names)
    async with open_desk(tmp_path, backend(models=many, delay_per_token_s=0.01)) as desk:
        for name in names:
            await desk.complete(asked("a b c d e f", model=name))
        assert len(desk.room.models) == told
        node = NodeTelemetry(
            name="n" * 128,
            boot="00000000000000b0",
            roles=ROLES,
            sandbox="bubblewrap",
            device=PROFILE,
            sample=lambda _now: IDLE,
            addresses=lambda: (Address("/" + "x" * 255),) * 20,
        )
        assert len(desk.room.tokens_per_s) == min(told, inference.RATES_MAX)
        node.rooms.models = lambda: desk.room.models
        node.rooms.tokens_per_s = lambda: desk.room.tokens_per_s
        encode(node.profile(0))


# --- more than words ----------------------------------------------------------------------------

LOGPROBS = tuple(wire.Logprob(token=str(n), logprob=-1.0) for n in range(20))


@pytest.mark.parametrize(
    ("delta", "sent"),
    [
        (Delta(thinking="hm", text="so"), ["thinking=hm", "text=so"]),
        (Delta(text="x" * 4097), ["text=" + "x" * 4096, "text=x"]),
        (Delta("x", logprobs=LOGPROBS), ["text=x logprobs=8", "logprobs=8", "logprobs=4"]),
        (Delta(logprobs=LOGPROBS[:3]), ["logprobs=3"]),
        (
            Delta(calls=(CallPiece(0, "a", "look", ""), CallPiece(1, arguments="{}"))),
            [
                "call 0 a look ",
                "call 1   {}",
            ],
        ),
        (
            Delta(calls=(CallPiece(2, "a" * 200, "look", "y" * 5000),)),
            [
                f"call 2 {'a' * 128} look {'y' * 4096}",
                f"call 2   {'y' * 904}",
            ],
        ),
    ],
)
async def test_a_delta_travels_in_small_messages_with_one_thing_each(
    delta: Delta, sent: list[str]
) -> None:
    assert [" ".join(words_of(piece)) for piece in inference.pieces(delta)] == sent
    for piece in inference.pieces(delta):
        encode(piece)


def words_of(piece: wire.CompletionDelta) -> list[str]:
    words = [f"text={piece.text}"] if piece.text else []
    words += [f"thinking={piece.thinking}"] if piece.thinking else []
    words += [f"logprobs={len(piece.logprobs)}"] if piece.logprobs else []
    return words + [
        f"call {call.index} {call.id} {call.name} {call.arguments}" for call in piece.tool_calls
    ]


async def test_everything_that_was_asked_reaches_the_backend(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    heard: list[CompletionRequest] = []

    def answer(request: CompletionRequest) -> str:
        heard.append(request)
        return "Good day"

    image = b"\x89PNG"
    fields: dict[str, Any] = {
        "messages": (wire.ChatMessage(role="user", content="?", images=(1, 0)),),
        "sampling": wire.Sampling(seed=1, stop=("x",), top_k=2),
        "tools": (wire.Tool(name="look"),),
        "tool_choice": "required",
        "calls_in_parallel": False,
        "thinking": "low",
        "so_far": "Good ",
    }
    async with open_desk(tmp_path, backend(answer)) as desk:
        ref = await desk.two.asking.store.put(b"\xff\xd8 by hash")
        images = (wire.Image(content=ref), wire.Image(data=image))
        deltas, end = await desk.complete(asked(**fields, images=images))
    assert deltas == ["day"]
    assert end.backend == "in-memory"
    (request,) = heard
    assert request.images == (b"\xff\xd8 by hash", image)
    for name, value in fields.items():
        assert getattr(request, name) == value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": ()}, "bad_request: neither messages nor a prompt"),
        (
            {"messages": (wire.ChatMessage(role="user", content="?", images=(3,)),)},
            "bad_request: no image number 3",
        ),
        ({"images": (wire.Image(),)}, "bad_request: an image without data or content"),
    ],
)
async def test_a_request_that_makes_no_sense_is_its_askers_fault(
    virtual_time: JumpingClock, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    async with open_desk(tmp_path, backend()) as desk:
        with pytest.raises(RequestFailedError, match=words):
            await desk.complete(asked(**fields))


async def test_what_a_server_would_leave_out_is_refused_by_name(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, backend(kind="exo")) as desk:
        with pytest.raises(RequestRefusedError, match=r"unsupported: .*json_schema") as refused:
            await desk.complete(asked(json_schema="{}"))
        assert refused.value.reason == "unsupported"


async def test_a_prompt_that_is_too_long_is_refused_and_may_fit_elsewhere(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    def answer(_request: CompletionRequest) -> str:
        raise BackendError("too_long", "about 9000 tokens; m reads 4096 here")

    async with open_desk(tmp_path, backend(answer)) as desk:
        with pytest.raises(RequestRefusedError, match="too_long: about 9000"):
            await desk.complete(asked())


async def test_a_coordinator_whose_term_is_over_is_refused(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    task = TaskId("t")
    async with open_desk(tmp_path, backend()) as desk:
        await desk.complete(asked(task=task, term=2))
        await desk.complete(asked(task=task, term=2))
        with pytest.raises(RequestRefusedError, match="stale: term 1; 2 was heard"):
            await desk.complete(asked(task=task, term=1))
        await desk.complete(asked(task=TaskId("other"), term=1))


async def test_tasks_of_one_name_are_told_apart_by_their_submitters(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    one, other = (
        Claim(submitter=PeerId(name)) for name in ("12D3KooWAnna1111", "12D3KooWBert1111")
    )
    async with open_desk(tmp_path, backend()) as desk:
        await desk.complete(asked(task=TaskId("t"), term=5, claim=one))
        await desk.complete(asked(task=TaskId("t"), term=1, claim=other))
        with pytest.raises(RequestRefusedError, match="stale: term 4; 5 was heard"):
            await desk.complete(asked(task=TaskId("t"), term=4, claim=one))


async def test_many_vectors_come_in_several_messages(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    texts = tuple("ab" * n for n in range(40))
    request = wire.EmbeddingsAsked(model="m", texts=texts, remaining_s=9)
    async with open_desk(tmp_path, Wide()) as desk:
        sizes: list[int] = []
        async with desk.two.asking.asker.converse(
            desk.two.room.peer, PROTOCOL, request
        ) as conversation:
            while isinstance(message := await conversation.receive(), wire.EmbeddingsPiece):
                sizes.append(len(message.vectors))
        assert isinstance(message, wire.EmbeddingsDone)
        assert message.dimensions == Wide.DIMENSIONS
        assert sizes == [32 * 4 * 4096, 8 * 4 * 4096]


class Wide(InMemoryBackend):
    """Has vectors of which only a few fit a message."""

    DIMENSIONS = 4096

    def __init__(self) -> None:
        super().__init__(echo, models=(MODEL,))

    async def embed(self, request: EmbeddingRequest, *, idle_timeout_s: float) -> Embedded:
        await trio.lowlevel.checkpoint()
        vectors = tuple(bytes(4 * self.DIMENSIONS) for _ in request.texts)
        return Embedded(vectors, self.DIMENSIONS, 1, usage_is_estimate=False)
