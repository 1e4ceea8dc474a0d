"""Whatever a client sends is understood, or refused with 400: it is never a defect of the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces import anthropic, ollama, openai_requests, responses_requests
from kowalski.node.http.faces.words import Lenient

Read = Callable[..., object]

USER = {"role": "user", "content": "hello"}
FIT: Mapping[str, object] = {
    "model": "m",
    "messages": [USER],
    "prompt": "hello",
    "input": "hello",
    "max_tokens": 5,
}
READERS: Mapping[str, tuple[Read, type[Lenient]]] = {
    "openai chat": (openai_requests.chat_asked, openai_requests.BODIES["/v1/chat/completions"]),
    "openai plain": (openai_requests.plain_asked, openai_requests.BODIES["/v1/completions"]),
    "openai embed": (openai_requests.embeddings_asked, openai_requests.BODIES["/v1/embeddings"]),
    "openai response": (
        responses_requests.response_asked,
        responses_requests.BODIES["/v1/responses"],
    ),
    "ollama chat": (ollama.chat_asked, ollama.BODIES["/api/chat"]),
    "ollama generate": (ollama.generate_asked, ollama.BODIES["/api/generate"]),
    "ollama embed": (ollama.embed_asked, ollama.BODIES["/api/embed"]),
    "anthropic": (anthropic.messages_asked, anthropic.BODIES["/v1/messages"]),
}

EXTREMES: tuple[object, ...] = (
    *(None, True, 0, -1, 2, 0.5, -0.1, 1e9, -(2**70), 2**70, float("nan"), float("inf")),
    *("", "x" * 300, "\x00", "\ud800", "none", "json", [], [""], ["x"] * 200, {}, {"type": "text"}),
)
LONG = "x" * (1024 * 1024 + 1)
MESSAGES: tuple[Mapping[str, object], ...] = (
    {"role": "user", "content": LONG},
    {"role": "assistant", "tool_calls": [{"function": {"name": "f" * 200, "arguments": {}}}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f" * 200}]},
    {"role": "tool", "content": "", "tool_call_id": "x" * 500},
    {"role": "user", "content": "", "images": ["eA=="] * 80},
)

JSON = st.recursive(
    st.sampled_from(EXTREMES) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def understood_or_refused(read: Read, body: Mapping[str, object]) -> None:
    refused: HttpError | None = None
    try:
        read(body, remaining_s=60.0)
    except HttpError as no:
        refused = no
    assert refused is None or (refused.status == 400 and str(refused))


def names_of(model: type[Lenient]) -> list[str]:
    return sorted(field.alias or name for name, field in model.model_fields.items())


@pytest.mark.parametrize("face", READERS)
@given(data=st.data())
def test_any_value_of_any_field(face: str, data: st.DataObject) -> None:
    read, model = READERS[face]
    fields = data.draw(st.dictionaries(st.sampled_from(names_of(model)), JSON, max_size=2))
    understood_or_refused(read, {**FIT, **fields})


@pytest.mark.parametrize("face", READERS)
@pytest.mark.parametrize("value", EXTREMES, ids=range(len(EXTREMES)))
def test_extremes_of_each_field(face: str, value: object) -> None:
    read, model = READERS[face]
    for name in names_of(model):
        understood_or_refused(read, {**FIT, name: value})
    if "options" in model.model_fields:
        for name in ("temperature", "top_p", "top_k", "seed", "stop", "num_predict", "num_ctx"):
            understood_or_refused(read, {**FIT, "options": {name: value}})


@pytest.mark.parametrize("face", READERS)
@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_messages_that_are_too_much(face: str, message: Mapping[str, Any]) -> None:
    understood_or_refused(READERS[face][0], {**FIT, "messages": [USER, message]})
