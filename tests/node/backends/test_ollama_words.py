"""Ollama's bodies, pulls and descriptions."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest

from kowalski.node.backends import ollama_words as words
from kowalski.node.backends.seam import BackendError, CompletionRequest, Fetched
from kowalski.protocol.messages.inference import ChatMessage, Sampling, Tool, ToolCall
from tests.node.backends.asking import question


def body(asked: CompletionRequest) -> dict[str, Any]:
    return words.chat_body(asked, context_tokens=4096, keep_alive="5m")


def test_every_way_to_sample_is_an_option() -> None:
    sampling = Sampling(
        seed=7,
        stop=("a",),
        top_p=0.5,
        top_k=3,
        min_p=0.0,
        presence_penalty=-1.0,
        frequency_penalty=0.5,
        repeat_penalty=1.5,
    )
    assert body(question(sampling=sampling, max_tokens=9, temperature=0.0))["options"] == {
        "num_ctx": 4096,
        "num_predict": 9,
        "temperature": 0.0,
        "seed": 7,
        "stop": ["a"],
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.0,
        "presence_penalty": -1.0,
        "frequency_penalty": 0.5,
        "repeat_penalty": 1.5,
    }


def test_tools_calls_and_results() -> None:
    call = ToolCall(id="x", name="look", arguments='{"at":1}')
    messages = (
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        ChatMessage(role="tool", content="nothing", tool_call="x"),
    )
    asked = dataclasses.replace(question(tools=(Tool(name="look"),)), messages=messages)
    said = body(asked)
    assert said["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "x", "function": {"name": "look", "arguments": {"at": 1}}}],
        },
        {"role": "tool", "content": "nothing", "tool_name": "look", "tool_call_id": "x"},
    ]
    (tool,) = said["tools"]
    assert tool["function"]["parameters"] == {"type": "object", "properties": {}}
    assert "tools" not in body(question(tools=(Tool(name="look"),), tool_choice="none"))


def test_images_are_base64_of_their_own() -> None:
    messages = (ChatMessage(role="user", content="what?", images=(0,)),)
    asked = dataclasses.replace(question(), messages=messages, images=(b"png",))
    assert body(asked)["messages"][0]["images"] == [base64.b64encode(b"png").decode()]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"json_schema": "{}"}, {"format": "json"}),
        ({"json_schema": '{"type":"integer"}'}, {"format": {"type": "integer"}}),
        ({"thinking": "on"}, {"think": True}),
        ({"thinking": "off"}, {"think": False}),
        ({"thinking": "low"}, {"think": "low"}),
        ({"logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ],
)
def test_the_rest_has_its_names(fields: dict[str, Any], told: dict[str, object]) -> None:
    said = body(question(**fields))
    assert {name: said[name] for name in told} == told


def test_an_answer_is_gone_on_with_from_its_last_message() -> None:
    assert body(question(so_far="Good "))["messages"][-1] == {
        "role": "assistant",
        "content": "Good ",
    }


def test_a_raw_prompt_has_no_template() -> None:
    asked = CompletionRequest("m", prompt="Once", so_far=" upon")
    said = words.prompt_body(asked, context_tokens=4096, keep_alive="5m")
    assert (said["prompt"], said["raw"]) == ("Once upon", True)


def test_arguments_that_are_no_object_are_the_askers_fault() -> None:
    call = ToolCall(name="look", arguments="3")
    messages = (ChatMessage(role="assistant", content="", tool_calls=(call,)),)
    with pytest.raises(BackendError, match="rejected: the call of look"):
        body(dataclasses.replace(question(), messages=messages))


@pytest.mark.parametrize(
    ("line", "fetched"),
    [
        ({"status": "pulling manifest"}, Fetched("preparing", "pulling manifest")),
        (
            {"status": "pulling 970a", "total": 10, "completed": 12},
            Fetched("downloading", "pulling 970a", 10, 10),
        ),
        ({"status": "pulling 970a", "total": 10}, Fetched("downloading", "pulling 970a", 0, 10)),
        ({"status": "verifying sha256 digest"}, Fetched("verifying", "verifying sha256 digest")),
        ({"status": "success"}, Fetched("ready", "success")),
        ({"status": 3, "total": "many"}, Fetched("preparing", "")),
    ],
)
def test_a_pull_tells_how_far_it_is(line: dict[str, object], fetched: Fetched) -> None:
    assert words.fetched(line) == fetched


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("pull model manifest: file does not exist", "model_missing"),
        ('Get "https://registry": dial tcp: lookup registry: no such host', "unreachable"),
        ("no space left on device", "rejected"),
    ],
)
def test_a_pull_that_fails_says_whose_fault_it_is(error: str, code: str) -> None:
    assert words.pull_error({"error": error}).code == code


def test_descriptions_of_another_shape_tell_nothing() -> None:
    assert words.capabilities({"capabilities": "all"}) == ()
    assert words.trained_context({"model_info": []}) is None
    assert words.trained_context({"model_info": {"x.context_length": "8k"}}) is None
    assert words.named({}) == {}
    assert words.named({"models": [3, {"name": ""}, {"name": "a"}]}) == {"a": {"name": "a"}}
    with pytest.raises(BackendError, match="no list of models"):
        words.named({"models": 3})
