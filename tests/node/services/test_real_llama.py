"""The real llama.cpp behind a room, asked by another peer over frames: what is asked is honoured.

The model says nonsense, but always the same for the same seed; so what is compared are answers with
each other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from kowalski.node.backends.catalogue import Catalogue, open_catalogue
from kowalski.node.backends.http import open_http
from kowalski.node.backends.llama_child import open_model_files
from kowalski.node.backends.probing import Candidate, Finding, probe
from kowalski.node.services.inference import PROTOCOL, InferenceRoom
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.messages import inference as wire
from kowalski.rlm.tokens import estimate_tokens
from tests.node.services.rooms import Two, hot, open_two
from tests.tiny_gguf import make_tiny_gguf

pytest.importorskip("xllamacpp", reason="the extra [llama] is not installed")
pytestmark = [pytest.mark.trio, pytest.mark.real]

QUESTION = (wire.ChatMessage(role="user", content="the node and the mesh"),)
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 12}


@dataclass(frozen=True, slots=True)
class Answered:
    text: str
    deltas: tuple[wire.CompletionDelta, ...]
    done: wire.CompletionDone


@dataclass(frozen=True, slots=True)
class Desk:
    two: Two
    catalogue: Catalogue

    async def ask(self, **fields: Any) -> Answered:  # noqa: ANN401 fields of the message
        given = {"model": "tiny", "messages": QUESTION, "remaining_s": 60.0, **fields}
        deltas: list[wire.CompletionDelta] = []
        async with self.two.asking.asker.converse(
            self.two.room.peer, PROTOCOL, wire.CompletionAsked(**given)
        ) as conversation:
            while isinstance(message := await conversation.receive(), wire.CompletionDelta):
                deltas.append(message)
        assert isinstance(message, wire.CompletionDone)
        return Answered("".join(delta.text for delta in deltas), tuple(deltas), message)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    make_tiny_gguf(path)
    return path


@asynccontextmanager
async def open_desk(tiny: Path, folder: Path) -> AsyncIterator[Desk]:
    async with open_http() as http, open_two(folder) as two:

        async def look(places: Sequence[Candidate]) -> tuple[Finding, ...]:
            return await probe(places, http=http, estimate_tokens=estimate_tokens)

        async with (
            open_catalogue((), look) as catalogue,
            open_model_files((f"{tiny}?threads=1&slots=2",), catalogue),
        ):
            room = InferenceRoom(catalogue, two.room.store, two.room.requester, hot=hot)
            two.room.serve(PROTOCOL, room.answer)
            with trio.fail_after(60):
                await catalogue.wait_changed()
            yield Desk(two, catalogue)


async def test_what_is_asked_for_is_what_comes(tiny: Path, tmp_path: Path) -> None:
    """All in one, because loading the model is most of the time."""
    async with open_desk(tiny, tmp_path) as desk:
        plain = await desk.ask(**GREEDY)
        await check_counting(desk, plain)
        await check_stopping(desk, plain)
        await check_seeds(desk)
        await check_going_on(desk, plain)
        await check_prompts_and_logprobs(desk)
        await check_schema(desk)
        await check_tokens(desk)
        await check_refusals(desk)


async def check_counting(desk: Desk, plain: Answered) -> None:
    usage = plain.done.usage
    assert (usage.completion_tokens, usage.is_estimate) == (12, False)
    assert usage.prompt_tokens > 5
    assert plain.done.finish_reason == "length"
    assert plain.done.backend == "llama-server"
    assert plain.done.prompt_s is not None
    assert plain.done.generation_s is not None
    again = await desk.ask(**GREEDY)
    assert again.text == plain.text
    assert again.done.usage.cached_tokens > 0
    (listing,) = desk.catalogue.listings()
    assert listing.tokens_per_s is not None
    assert listing.prompt_tokens_per_s is not None


async def check_stopping(desk: Desk, plain: Answered) -> None:
    stop = plain.text[3:6]
    stopped = await desk.ask(**GREEDY, sampling=wire.Sampling(stop=(stop,)))
    assert stopped.text == plain.text[: plain.text.index(stop)]
    assert stopped.done.finish_reason == "stop"


async def check_seeds(desk: Desk) -> None:
    hot_head: dict[str, Any] = {"temperature": 1.5, "max_tokens": 12}
    texts = [
        (await desk.ask(**hot_head, sampling=wire.Sampling(seed=seed))).text for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def check_going_on(desk: Desk, plain: Answered) -> None:
    """The tokens before and after a cut may be others than without: what is held is the text."""
    begun = "".join(delta.text for delta in plain.deltas[:4])
    rest = await desk.ask(**{**GREEDY, "max_tokens": 8}, so_far=begun)
    assert rest.text
    assert not rest.text.startswith(begun)
    assert rest.done.usage.prompt_tokens > plain.done.usage.prompt_tokens


async def check_prompts_and_logprobs(desk: Desk) -> None:
    raw = await desk.ask(messages=(), prompt="the node", **GREEDY)
    chat = await desk.ask(messages=(wire.ChatMessage(role="user", content="the node"),), **GREEDY)
    assert raw.text
    assert raw.done.usage.prompt_tokens < chat.done.usage.prompt_tokens
    told = await desk.ask(logprobs=2, **GREEDY)
    logprobs = [one for delta in told.deltas for one in delta.logprobs]
    assert len(logprobs) == 12
    assert all(len(one.alternatives) == 2 and one.logprob <= 0 for one in logprobs)
    assert "".join(one.token for one in logprobs) == told.text


async def check_schema(desk: Desk) -> None:
    schema = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'
    bound = await desk.ask(json_schema=schema, temperature=0.0, max_tokens=200)
    if bound.done.finish_reason == "stop":
        assert isinstance(json.loads(bound.text)["n"], int)
    else:
        assert bound.text.lstrip().startswith("{")


async def check_tokens(desk: Desk) -> None:
    """The same as the server counts for a prompt of the text, which it may begin with one more."""
    text = "the node and the mesh, " * 20
    request = wire.TokensAsked(model="tiny", texts=(text, ""), remaining_s=10)
    told = await desk.two.asking.asker.request(
        desk.two.room.peer, PROTOCOL, request, wire.TokensCounted, timeout_s=10
    )
    raw = await desk.ask(messages=(), prompt=text, **GREEDY)
    assert (told.is_estimate, told.model, told.backend) == (False, "tiny", "llama-server")
    assert told.counts[0] > 20
    assert raw.done.usage.prompt_tokens - told.counts[0] in (0, 1)
    assert told.counts[1] == 0


async def check_refusals(desk: Desk) -> None:
    with pytest.raises(RequestRefusedError, match=r"unsupported: .*tools"):
        await desk.ask(tools=(wire.Tool(name="look"),))
    pictured = (wire.ChatMessage(role="user", content="?", images=(0,)),)
    with pytest.raises(RequestRefusedError, match=r"unsupported: .*images"):
        await desk.ask(messages=pictured, images=(wire.Image(data=b"png"),))
    long = (wire.ChatMessage(role="user", content="the node " * 5000),)
    with pytest.raises(RequestRefusedError, match="too_long"):
        await desk.ask(messages=long)
    with pytest.raises(RequestRefusedError, match="unsupported: no server"):
        await desk.ask(model="other")


async def test_texts_become_vectors_and_who_leaves_frees_the_slot(
    tiny: Path, tmp_path: Path
) -> None:
    async with open_desk(tiny, tmp_path) as desk:
        texts = ("the node and the mesh", "the node and the mesh", "a red bird")
        request = wire.EmbeddingsAsked(model="tiny", texts=texts, remaining_s=60)
        data = b""
        async with desk.two.asking.asker.converse(
            desk.two.room.peer, PROTOCOL, request
        ) as conversation:
            while isinstance(message := await conversation.receive(), wire.EmbeddingsPiece):
                data += message.vectors
        assert isinstance(message, wire.EmbeddingsDone)
        width = message.dimensions
        vectors = [
            struct.unpack(f"<{width}f", data[4 * width * n :][: 4 * width]) for n in (0, 1, 2)
        ]
        assert vectors[0] == pytest.approx(vectors[1], abs=1e-4)
        assert vectors[0] != pytest.approx(vectors[2], abs=1e-4)
        assert message.usage.prompt_tokens > 0

        endless = wire.CompletionAsked(
            model="tiny", messages=QUESTION, temperature=0.0, max_tokens=8000, remaining_s=60
        )
        async with desk.two.asking.asker.converse(
            desk.two.room.peer, PROTOCOL, endless
        ) as conversation:
            assert isinstance(await conversation.receive(), wire.CompletionDelta)
            assert desk.catalogue.listings()[0].in_flight == 1
        with trio.fail_after(5):
            while desk.catalogue.listings()[0].in_flight:  # noqa: ASYNC110 the room tells nobody
                await trio.sleep(0.01)
