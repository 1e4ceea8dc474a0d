"""What OpenAI's clients ask, as the mesh takes it."""

import base64
from collections.abc import Callable

import pytest

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.openai_replies import error_answer
from kowalski.node.http.faces.openai_requests import chat_asked, embeddings_asked, plain_asked

Body = dict[str, object]
USER = {"role": "user", "content": "hello"}


def refusal(body: Body) -> HttpError:
    with pytest.raises(HttpError) as no:
        chat_asked({"model": "m", "messages": [USER], **body}, remaining_s=60)
    assert no.value.status == 400
    return no.value


def test_a_plain_chat() -> None:
    asked = chat_asked({"model": "m", "messages": [USER]}, remaining_s=60)
    assert asked.completion.model == "m"
    assert [(one.role, one.content) for one in asked.completion.messages] == [("user", "hello")]
    assert asked.completion.remaining_s == 60
    assert (asked.wants_stream, asked.wants_usage) == (False, False)


def test_everything_that_is_set_is_passed_on() -> None:
    body: Body = {
        "model": "m",
        "messages": [{"role": "developer", "content": "be brief"}, USER],
        "max_completion_tokens": 9,
        "max_tokens": 8,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": -1,
        "stop": "END",
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repeat_penalty": 1.1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 3,
        "reasoning_effort": "minimal",
        "parallel_tool_calls": False,
        "user": "somebody",
        "a_field_of_next_year": 1,
    }
    asked = chat_asked(body, remaining_s=60)
    told, sampling = asked.completion, asked.completion.sampling
    assert told.messages[0].role == "system"
    assert (told.max_tokens, told.temperature, told.logprobs) == (9, 0.5, 3)
    assert (told.thinking, told.calls_in_parallel) == ("low", False)
    assert (sampling.top_p, sampling.top_k, sampling.min_p) == (0.9, 40, 0.05)
    assert (sampling.seed, sampling.stop) == (2**53 - 1, ("END",))
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, 0.2)
    assert sampling.repeat_penalty == 1.1
    assert asked.wants_stream
    assert asked.wants_usage


def test_tools_and_what_came_of_them() -> None:
    function = {"name": "look", "description": "d", "parameters": {"type": "object"}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    body: Body = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
    }
    told = chat_asked(body, remaining_s=60).completion
    assert told.model == "*"
    assert told.tools[0].parameters == '{"type":"object"}'
    assert (told.tool_named, told.tool_choice) == ("look", None)
    assert told.messages[1].tool_calls[0].name == "look"
    assert told.messages[2].tool_call == "c1"
    body["tool_choice"] = "required"
    assert chat_asked(body, remaining_s=60).completion.tool_choice == "required"


def test_pictures_are_numbered_where_they_stand() -> None:
    url = "data:image/png;base64," + base64.b64encode(b"png").decode()
    parts = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "this?"},
    ]
    messages = [{"role": "user", "content": parts}, {"role": "user", "content": parts[1:2]}]
    asked = chat_asked({"model": "m", "messages": messages}, remaining_s=60)
    assert asked.completion.messages[0].content == "what is\nthis?"
    assert [one.images for one in asked.completion.messages] == [(0,), (1,)]
    assert [one.data for one in asked.pictures] == [b"png", b"png"]


@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "{}"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}}, '{"a":1}'),
    ],
)
def test_the_form_of_an_answer(wanted: Body, schema: str | None) -> None:
    body: Body = {"model": "m", "messages": [USER], "response_format": wanted}
    assert chat_asked(body, remaining_s=60).completion.json_schema == schema


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": ""}]}, "role"),
        ({"n": 2}, "n is not supported"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"functions": [{}]}, "functions"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_logprobs": 99, "logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"reasoning_effort": "immense"}, "reasoning_effort"),
        ({"response_format": {"type": "json_schema"}}, "schema"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "audio"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(body: Body, word: str) -> None:
    assert word in refusal(body).message


def test_a_picture_elsewhere_is_not_fetched() -> None:
    for url in ("https://example.org/a.png", "data:image/png;base64,!!"):
        part = {"type": "image_url", "image_url": {"url": url}}
        refusal({"messages": [{"role": "user", "content": [part]}]})


def test_nothing_that_stands_for_nothing_is_refused() -> None:
    body: Body = {"n": 1, "logit_bias": {}, "functions": [], "stop": None, "tools": None}
    chat_asked({"model": "m", "messages": [USER], **body}, remaining_s=60)


def test_a_text_to_go_on_with() -> None:
    asked = plain_asked({"model": "m", "prompt": ["once"], "logprobs": 2}, remaining_s=60)
    assert (asked.completion.prompt, asked.completion.messages) == ("once", ())
    assert asked.completion.logprobs == 2
    for body in ({"prompt": ["a", "b"]}, {"prompt": "a", "echo": True}, {"prompt": [1, 2]}):
        with pytest.raises(HttpError):
            plain_asked({"model": "m", **body}, remaining_s=60)


def test_texts_to_embed() -> None:
    asked, in_base64 = embeddings_asked(
        {"model": "e", "input": "one", "encoding_format": "base64"}, remaining_s=60
    )
    assert (asked.texts, in_base64) == (("one",), True)
    for body in ({"input": []}, {"input": [[1, 2]]}, {"input": "a", "dimensions": 0}):
        with pytest.raises(HttpError):
            embeddings_asked({"model": "e", **body}, remaining_s=60)


@pytest.mark.parametrize("read", [chat_asked, plain_asked])
def test_a_refused_field_is_named_where_clients_look_for_it(read: Callable[..., object]) -> None:
    body = {"messages": [USER], "prompt": "x", "n": 2, "nobody_knows": 1}
    with pytest.raises(HttpError) as no:
        read(body, remaining_s=60)
    assert error_answer(no.value)["error"]["param"] == "n"  # type: ignore[index]
    read({**body, "n": 1}, remaining_s=60)
